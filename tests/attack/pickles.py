"""Malformed and hostile recordings without end: each would trip the canary, or exhaust something, were it unpickled.

``python -m tests.attack.pickles 10000`` reads so many of them, as ``tests/demonstrations/test_pymarl.py`` does with fewer.
"""

from __future__ import annotations

import functools
import io
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Names that run code, reach something that does, or allocate, with arguments that would.
NAMES: list[tuple[str, str, tuple[Any, ...]]] = [
    ("os", "system", ("touch {}",)),
    ("posix", "system", ("touch {}",)),
    ("os", "popen", ("touch {}",)),
    ("os", "mkdir", ("{}",)),
    ("subprocess", "call", (["touch", "{}"],)),
    ("subprocess", "Popen", (["touch", "{}"],)),
    ("builtins", "eval", ("open({!r}, 'w')",)),
    ("builtins", "exec", ("open({!r}, 'w')",)),
    ("builtins", "open", ("{}", "w")),
    ("builtins", "__import__", ("os",)),
    ("builtins", "getattr", (1, "real")),
    ("__builtin__", "eval", ("open({!r}, 'w')",)),
    ("io", "open", ("{}", "w")),
    ("runpy", "run_path", ("{}",)),
    ("timeit", "timeit", ("open({!r}, 'w')",)),
    ("cProfile", "run", ("open({!r}, 'w')",)),
    ("pty", "spawn", (["touch", "{}"],)),
    ("importlib", "import_module", ("antigravity",)),
    ("operator", "attrgetter", ("system",)),
    ("functools", "partial", (print,)),
    ("pathlib", "Path.touch", ("{}",)),
    ("shutil", "rmtree", ("{}",)),
    ("numpy", "load", ("{}",)),
    ("numpy", "memmap", ("{}", "u1", "w+", 0, (10,))),
    ("numpy", "zeros", (10**12,)),
    ("numpy.testing._private.utils", "runstring", ("open({!r}, 'w')", {})),
    ("torch", "load", ("{}",)),
    ("torch", "zeros", (10**12,)),
    ("torch.serialization", "load", ("{}",)),
    ("torch.storage", "torch.load", ("{}",)),
    ("torch._utils", "torch.os.system", ("touch {}",)),
    ("torch.storage", "io.open", ("{}", "w")),
    ("numpy.core.multiarray", "os.system", ("touch {}",)),
    ("collections", "abc.sys.modules", ()),
    ("collections.OrderedDict", "fromkeys", ("{}",)),
    ("torch._utils", "_rebuild_tensor_v2.__globals__", ()),
    ("torch._dynamo", "compile", ()),
    ("torch.hub", "load", ("x", "y")),
    ("torch", "_C._from_dlpack", ()),
    ("marshal", "loads", (b"c",)),
    ("types", "CodeType", ()),
    ("types", "FunctionType", ()),
    ("ctypes", "CDLL", ("libc.so.6",)),
    ("code", "InteractiveInterpreter", ()),
    ("copyreg", "_reconstructor", (object, object, None)),
    ("copy_reg", "_reconstructor", (1, 2, 3)),
    ("codecs", "encode", ("x", "rot13")),
    ("_codecs", "encode", ("x", "rot13")),
    ("_codecs", "decode", (b"x", "zlib")),
    ("learners.gail_learner", "HeapItem", (1.0, {})),
]


class Call:
    """Pickles as a call of ``module.name(*arguments)``, whether or not there is such a thing."""

    def __init__(self, module: str, name: str, arguments: tuple[Any, ...]) -> None:
        self.module, self.name, self.arguments = module, name, arguments


class Pickler(pickle._Pickler):  # the one in Python, whose opcodes can be chosen
    """Writes :class:`Call` by name, never importing what it names."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if not isinstance(obj, Call):
            return super().save(obj, save_persistent_id)
        if self.proto >= 4:
            super().save(obj.module)
            super().save(obj.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        super().save(obj.arguments)
        self.write(pickle.REDUCE)
        return None


def dumps(obj: Any, protocol: int) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol).dump(obj)
    return file.getvalue()


def npy(content: bytes, shape: str = "(2,)", descr: str = "|O", version: bytes = b"\1\0") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header = header + " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode() + content


def npz(content: bytes, name: str = "arr_0.npy", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def episodes(count: int = 2, rows: int = 6, agents: int = 2, width: int = 3) -> list[dict[str, Any]]:
    """A valid recording of one agent, as PyMARL makes it: views of tensors of all agents."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for e in range(count):
        obs = torch.zeros(1, rows, agents, width)
        actions = torch.zeros(1, rows, agents, 1, dtype=torch.long)
        obs[:, : e + 3] = torch.rand(1, e + 3, agents, width, generator=generator) + 0.1
        actions[:, : e + 3] = 6
        result.append({"obs": obs[:, :, 0], "actions": actions[:, :, 0]})
    return result


def array_of(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


class _AsStorage:
    """Pickles as the call with which torch reads a storage, given any bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> Any:
        return torch.storage._load_from_bytes, (self.content,)


class _AsTensor:
    """Pickles as a tensor with any arguments."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.arguments


class _AsArray:
    """Pickles as an array with any state."""

    def __init__(self, *state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), self.state


def storage_bytes(obj: Any = None, protocol: int = 2, replace: int = -1, by: bytes = b"", numel: int | None = None) -> bytes:
    """What torch writes for a storage of four floats, with one of its five pickles or its size replaced."""
    parts = [
        pickle.dumps(0x1950A86A20F9469CFC6C, 2),
        pickle.dumps(1001, 2),
        pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}, 2),
        b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0kX\x03\0\0\0cpuK\x04Nt.".replace(b"t.", b"tQ."),
        pickle.dumps(["k"], 2),
    ]
    if obj is not None:
        parts[replace] = dumps(obj, protocol)
    if by:
        parts[replace] = by
    return b"".join(parts) + struct.pack("<q", 4 if numel is None else numel) + np.arange(4, dtype="<f4").tobytes()


def _payload(rng: random.Random, canary: str) -> Call:
    module, name, arguments = rng.choice(NAMES)
    filled = tuple(
        a.format(canary) if isinstance(a, str) else [x.format(canary) for x in a] if isinstance(a, list) else a
        for a in arguments
    )
    return Call(module, name, filled)


def _hidden(rng: random.Random, canary: str) -> bytes:
    """A call in some place of an otherwise valid recording, in any protocol."""
    call, protocol, items = _payload(rng, canary), rng.randrange(6), episodes()
    item = items[rng.randrange(2)]
    place = rng.randrange(10)
    if place == 0:
        return npy(dumps(call, protocol))
    if place == 1:
        item["obs"] = call
    elif place == 2:
        item["note"] = {"a": [({"b": (1, [call])},)]}
    elif place == 3:
        items[0] = call
    elif place == 4:
        item["actions"] = _AsTensor(item["actions"]._typed_storage(), 0, (1, 6, 1), (6, 1, 1), False, call)
    elif place == 5:
        item["obs"] = _AsTensor(call, 0, (1, 6, 3), (18, 3, 1), False, {})
    elif place == 6:
        item["obs"] = _AsArray(1, (1, 6, 3), call, False, b"")
    elif place == 7:
        return npy(dumps([call, array_of(items)], protocol))
    elif place == 8:
        item["obs"] = _AsStorage(dumps(call, rng.randrange(6)))
    else:
        item["obs"] = _AsTensor(
            _AsStorage(storage_bytes(call, rng.randrange(6), rng.randrange(5))), 0, (4,), (1,), False, {}
        )
    return npy(dumps(array_of(items), protocol))


def _opcodes(rng: random.Random, canary: str) -> bytes:
    """Opcodes that the pickler would not write."""
    p = pickle
    touch = b"X" + struct.pack("<I", len(f"touch {canary}")) + f"touch {canary}".encode()
    deep = rng.randrange(50_000, 200_000)
    choices: list[bytes] = [
        b"(cos\nsystem\n" + touch + b"o.",  # OBJ
        b"(S'touch " + canary.encode() + b"'\nios\nsystem\n.",  # INST
        b"\x80\2cos\nsystem\n" + touch + b"\x85\x81.",  # NEWOBJ
        b"\x80\4cos\nsystem\n" + touch + b"\x85}\x92.",  # NEWOBJ_EX
        b"\x80\2\x82\1.",
        b"\x80\2\x83\1\0.",
        b"\x80\2\x84\1\0\0\0.",  # EXT1, EXT2, EXT4
        b"\x80\2Pos.system\n.",
        b"\x80\2X\1\0\0\0kQ.",  # PERSID, BINPERSID
        b"\x80\2cnumpy\ndtype\n}X\7\0\0\0__doc__X\1\0\0\0xsb.",  # BUILD on a function
        b"\x80\2ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\0\0\0__defaults__N\x86s\x86b.",
        b"\x80\2Nr\xff\xff\xff\x7f.",  # a memo index that a list would be grown to
        b"\x80\2Nr" + struct.pack("<I", rng.randrange(2**20, 2**32)) + b"j\0\0\0\0.",
        b"\x80\2h\5.",
        b"\x80\4\x8e" + struct.pack("<Q", rng.randrange(2**33, 2**62)) + b"abc.",  # sizes that nobody sent
        b"\x80\4\x8d" + struct.pack("<Q", rng.randrange(2**33, 2**62)) + b"abc.",
        b"\x80\5\x96" + struct.pack("<Q", rng.randrange(2**33, 2**62)) + b"abc.",
        b"\x80\4\x95" + struct.pack("<Q", rng.randrange(2**33, 2**62)) + b"N.",
        b"\x80\2B\xff\xff\xff\x7fabc.",
        b"\x80\2\x8b\xff\xff\xff\x7f.",
        b"\x80\2\x8b\xff\xff\xff\xff.",
        b"L" + b"9" * 100_000 + b"L\n.",
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x80\2" + b")" + b"\x85" * deep + b".",  # deep nesting, and deep nesting to hash
        b"\x80\2}" + b")" + b"\x85" * deep + b"Ns.",
        b"\x80\2" + b"(" * deep + b".",
        b"\x80\2" + b"]" * deep + b"a" * (deep - 1) + b".",
        b"\x80\2]q\0h\0a" + b"h\0a" * 100 + b".",  # a list in itself
        b"\x80\2)" + b"q\0h\0\x86" * 60 + b".",  # 2^60 tuples, if anybody counted
        b"\x80\2cnumpy\ndtype\n)" + b"q\0h\0\x86" * 60 + b"\x89\x88\x87R.",
        b"\x80\2" + b"N" * deep + b".",
        b"\x80\2" + b"N0" * 5 + b".",
        b"\x80\2N2.",
        b"\x80\2.",
        b"\x80\xff.",
        b"",
        b".",
        p.dumps({"obs": 1}),
        p.dumps([episodes()]),
        p.dumps({1, 2}),
        p.dumps(1j),
        p.dumps(slice(1)),
        p.dumps(Path(canary)),
        p.dumps(torch.nn.Linear(1, 1)),
        p.dumps(np.random.default_rng(0)),
    ]
    return npy(rng.choice(choices), rng.choice(["(2,)", "(1,)", "()"]))


def _claims(rng: random.Random, canary: str) -> bytes:
    """Sizes that do not fit the contents."""
    big, items = rng.choice([2**31, 2**40, 2**62, 2**70, -1]), episodes()
    item, few = items[0], torch.arange(4.0)._typed_storage()
    dtype = np.dtype("f4")
    choices: list[Callable[[], Any]] = [
        lambda: _AsTensor(few, 0, (1, big, 3), (0, 0, 0), False, {}),
        lambda: _AsTensor(few, 0, (1, 6, 3), (0, 0, 0), False, {}),
        lambda: _AsTensor(few, 0, (1, 2, 2), (4, big, 1), False, {}),
        lambda: _AsTensor(few, big, (1, 2, 2), (4, 2, 1), False, {}),
        lambda: _AsTensor(few, 1, (1, 2, 2), (4, 2, 1), False, {}),
        lambda: _AsTensor(few, 0, (1,) * 40, (1,) * 40, False, {}),
        lambda: _AsTensor(few, 0, (1, 2, 2), (4, 2), False, {}),
        lambda: _AsTensor(few, 0.5, (1, 2, 2), (4, 2, 1), False, {}),
        lambda: _AsTensor([1, 2], 0, (1, 2, 2), (4, 2, 1), False, {}),
        lambda: _AsTensor(few),
        lambda: _AsArray(1, (1, 6, big), dtype, False, b"abcd"),
        lambda: _AsArray(1, (big,), np.dtype("O"), False, []),
        lambda: _AsArray(1, (2,), np.dtype("O"), False, [1]),
        lambda: _AsArray(1, (2, 1), np.dtype("O"), False, [1, 2]),
        lambda: _AsArray(1, (1,), np.dtype("O"), False, {}),
        lambda: _AsArray(1, (1, 2, 3), dtype, False, b"x" * 24),
        lambda: _AsArray(1, (1, 6, 3), np.dtype("U1"), False, b"x" * 72),
        lambda: _AsArray(1, (1, 6, 3), np.dtype("M8[s]"), False, b"x" * 144),
        lambda: _AsArray(1, (1,), np.dtype([("a", "f4")]), False, b"x" * 4),
        lambda: _AsArray(1),
        lambda: np.full((1, 6, 3), np.nan, np.float32),
        lambda: np.full((1, 6, 3), np.inf, np.float64),
        lambda: np.zeros((1, 6, 3), complex),
        lambda: np.ones((1, 6, 0), np.float32),
        lambda: np.ones((6, 3), np.float32),
        lambda: torch.ones(2, 6, 3),
        lambda: torch.full((1, 6, 1), -1),
        lambda: torch.full((1, 6, 1), 2**40),
        lambda: torch.ones(1, 5, 3),
        lambda: torch.ones(1, 6, 3).to_sparse(),
        lambda: torch.nn.Parameter(torch.ones(1, 6, 3)),
        lambda: torch.ones(1, 6, 3).bfloat16(),
        lambda: torch.ones(1, 6, 3, dtype=torch.complex64),
        lambda: _AsTensor(_AsStorage(storage_bytes(numel=big % 2**62)), 0, (1, 2, 2), (4, 2, 1), False, {}),
        lambda: _AsTensor(_AsStorage(storage_bytes()[: rng.randrange(len(storage_bytes()))]), 0, (4,), (1,), False, {}),
        lambda: _AsTensor(
            _AsStorage(
                storage_bytes(
                    replace=3,
                    by=b"\x80\2(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0kX\3\0\0\0cpu"
                    + pickle.dumps(big)[2:-1].replace(b"\x95", b"")
                    + b"NtQ.",
                )
            ),
            *(0, (4,), (1,), False, {}),
        ),
        lambda: _AsTensor(_AsStorage(npz(b"torch")), 0, (4,), (1,), False, {}),
        lambda: None,
        list,
        lambda: "obs",
    ]
    item[rng.choice(["obs", "actions"])] = rng.choice(choices)()
    if rng.random() < 0.2:
        return npy(pickle.dumps(array_of(items)), f"({big},)")
    return npy(pickle.dumps(array_of(items), protocol=rng.randrange(2, 6)))


def _swollen(rng: random.Random, canary: str) -> bytes:
    """Small objects without end, of opcodes of one or two bytes, perhaps after a valid recording."""
    piece = rng.choice(
        [b"}", b"]", b")", b"N", b"(", b"]\x94", b"}\x94", b"h\0", b"h\0\x85", b"](h\0h\0h\0e", b"Q", b"\x89a"]
    )
    start = rng.choice([b"\x80\4]q\0", pickle.dumps(array_of(episodes()), protocol=4)[:-1]])
    return npy(start + piece * rng.randrange(50_000, 100_000) + b".")


def _truncated(rng: random.Random, canary: str) -> bytes:
    valid = npy(pickle.dumps(array_of(episodes()), protocol=rng.randrange(2, 6)))
    return valid[: rng.randrange(len(valid))]


def _scrambled(rng: random.Random, canary: str) -> bytes:
    """Opcodes at random, with bits of a valid pickle between them."""
    valid = pickle.dumps(array_of(episodes()), protocol=4)
    pieces = []
    for _ in range(rng.randrange(1, 60)):
        start = rng.randrange(len(valid))
        pieces.append(
            rng.choice([bytes([rng.randrange(256)]), valid[start : start + rng.randrange(40)], b"(", b"R", b"b", b"t"])
        )
    return npy(b"\x80\4" + b"".join(pieces) + b".")


def _headers(rng: random.Random, canary: str) -> bytes:
    """Headers of the array that are wrong."""
    valid = pickle.dumps(array_of(episodes()))
    choices = [
        npy(valid, "(3,)"),
        npy(valid, "(2, 1)"),
        npy(valid, "(" * 5000),
        npy(valid, "(-1,)"),
        npy(valid, "__import__('os')"),
        npy(np.zeros(10, "<f4").tobytes(), "(10,)", "<f4"),
        npy(b"", "(0,)"),
        npy(pickle.dumps(array_of([])), "(0,)"),
        npy(valid, version=bytes([rng.randrange(3, 256), 0])),
        valid,
        rng.randbytes(rng.randrange(200)),
        npy(valid + b"x"),
        npy(valid + valid),
    ]
    return rng.choice(choices)


@functools.cache
def _swelling() -> bytes:
    content = bytearray(npz(npy(bytes(20_000_000)), method=zipfile.ZIP_BZIP2))
    central = content.index(b"PK\1\2")
    content[central + 24 : central + 28] = struct.pack("<I", 1000)  # and claim to be small
    return bytes(content)


def cases(seed: int, canary: str) -> Iterator[tuple[str, str, bytes, bool]]:
    """(kind, suffix, bytes, must fail) without end. A flipped bit may lie in a number or be unused: that is fine."""
    rng = random.Random(seed)
    kinds = [_hidden, _hidden, _hidden, _opcodes, _claims, _truncated, _scrambled, _headers, _swollen]
    while True:
        kind = rng.choice([*kinds, "flip", "zip"])
        if kind == "flip":
            valid = bytearray(npy(pickle.dumps(array_of(episodes()), protocol=rng.randrange(2, 6))))
            for _ in range(rng.choice([1, 1, 2, 8])):
                valid[rng.randrange(len(valid))] ^= 1 << rng.randrange(8)
            yield "flip", "npy", bytes(valid), False
        elif kind == "zip":
            valid = npz(npy(pickle.dumps(array_of(episodes()))))
            choice = rng.randrange(7)
            if choice == 6:  # a few bytes that swell to 20 MB
                yield "zip", "npz", _swelling(), True
            elif choice == 0:
                yield "zip", "npz", valid[: rng.randrange(len(valid))], True
            elif choice == 1:
                yield "zip", "npz", npz(npy(b""), rng.choice(["arr_1.npy", "../arr_0.npy", "arr_0"])), True
            elif choice == 2:
                yield "zip", "npz", npz(rng.randbytes(100)), True
            elif choice == 3:  # more than is allowed, in few bytes
                yield "zip", "npz", npz(npy(bytes(2_000_000))), True
            elif choice == 4:
                claimed = valid.replace(struct.pack("<I", len(npy(pickle.dumps(array_of(episodes()))))), b"\xff\xff\xff\x7f")
                yield "zip", "npz", claimed, True
            else:
                flipped = bytearray(valid)
                flipped[rng.randrange(60, len(valid) - 120)] ^= 1 << rng.randrange(8)  # the compressed array: a checksum
                yield "flip", "npz", bytes(flipped), False  # which does not cover the last byte's unused bits
        else:
            content = kind(rng, canary)
            suffix = rng.choice(["npy", "npz"])
            yield kind.__name__.strip("_"), suffix, content if suffix == "npy" else npz(content), True


def read_all(count: int, seed: int, folder: Path) -> dict[str, int]:
    """Read so many that must fail, and those that may between them; how many of each kind were read, or harmless.

    Raises:
        AssertionError: One was read, gave another error than one sentence, or ran something.
    """
    from dm2_wrappers import Demonstrations

    canary = folder / "canary"
    tally: dict[str, int] = {}
    failed = 0
    for kind, suffix, content, must_fail in cases(seed, str(canary)):
        path = folder / f"agent_0.{suffix}"
        path.write_bytes(content)
        message = None
        try:
            Demonstrations.import_pymarl(folder, max_bytes=1_000_000)
        except ValueError as error:
            message = str(error)
        if message is not None:
            assert str(path) in message or "episode" in message, message
            assert len(message) - len(str(path)) < 300, message
            assert message.isprintable(), message
            assert "allow_pickle" not in message, message
            tally[kind] = tally.get(kind, 0) + 1
            failed += must_fail
        else:
            assert not must_fail, f"{kind} was read: {path.rename(folder / 'read')}"
            tally["harmless flip"] = tally.get("harmless flip", 0) + 1
        assert not canary.exists(), f"{kind} ran code: {path}"
        path.unlink()
        if failed == count:
            return tally
    raise AssertionError


def tripped_by_pickle(count: int, seed: int) -> int:
    """How many of the hidden calls create the canary when plain ``pickle`` reads them, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        canary, total = Path(folder, "canary"), 0
        rng = random.Random(seed)
        for _ in range(count):
            program = "import sys, numpy as np, io; np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=True)"
            subprocess.run([sys.executable, "-c", program], input=_hidden(rng, str(canary)), capture_output=True, cwd=folder)
            total += canary.exists()
            if canary.is_dir():
                canary.rmdir()
            canary.unlink(missing_ok=True)
        return total


if __name__ == "__main__":
    wanted, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as where:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(read_all(wanted, first, Path(where)))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{wanted} refused, none ran code; peak memory grew by {(after - before) / 1024:.0f} MiB")
        print(os.listdir(where))
