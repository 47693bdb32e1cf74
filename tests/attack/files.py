"""Damage demonstration files at random and load them: each gives one short sentence, or demonstrations that are valid.

    python -m tests.attack.files 2000

prints how many of each kind were refused and read, the longest sentence, the slowest file and how far memory grew, and each
leak: another error than documented, a long or unprintable sentence, NumPy's advice to unpickle, or invalid demonstrations.
``tests/demonstrations/test_npz.py`` runs fewer of them.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dm2_wrappers import Demonstrations

RECORDED = Path(__file__).parents[2] / "demos_data" / "smax_3m_win30.npz"
LONGEST = 300  # characters of a sentence, besides the file's name
Members = dict[str, bytes]


def small_file(seed: int = 0, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A valid file of three short episodes of two agents."""
    rng = np.random.default_rng(seed)
    episodes = [
        {
            "observations": {"a": rng.random((length, 3)), "b": rng.random((length, 2))},
            "actions": {"a": rng.integers(0, 5, length), "b": rng.integers(0, 5, length)},
            "rewards": rng.random(length),
            "won": bool(length % 2),
        }
        for length in (2, 3, 5)
    ]
    demos = Demonstrations.from_episodes(episodes, env_id="toy", provenance={"by": "a script"})
    with tempfile.TemporaryDirectory() as folder:
        demos.save(path := Path(folder, "demos.npz"))
        return packed(unpacked(path.read_bytes()), method)


def unpacked(content: bytes) -> Members:
    """The entries of an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of these entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(array: Any) -> bytes:
    """An array in NumPy's format; Python objects are pickled."""
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()


def with_header(content: bytes, header: str) -> bytes:
    """The same array contents under another header."""
    (length,) = struct.unpack("<H", content[8:10])
    text = header.encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return content[:8] + struct.pack("<H", len(text) % 65536) + text + content[10 + length :]


# --- kinds of damage: each takes random numbers and a valid file, and returns a damaged one ----------------------------


def flips(rng: random.Random, valid: bytes) -> bytes:
    content = bytearray(valid)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def directory_flips(rng: random.Random, valid: bytes) -> bytes:
    content, start = bytearray(valid), valid.index(b"PK\1\2")
    for _ in range(rng.choice([1, 1, 2, 4])):
        content[rng.randrange(start, len(content))] = rng.randrange(256)
    return bytes(content)


def truncation(rng: random.Random, valid: bytes) -> bytes:
    return valid[: rng.randrange(len(valid))]


def inserted_bytes(rng: random.Random, valid: bytes) -> bytes:
    where = rng.randrange(len(valid))
    return valid[:where] + rng.randbytes(rng.randrange(1, 50)) + valid[where + rng.choice([0, 20]) :]


def swapped_members(rng: random.Random, valid: bytes) -> bytes:
    members = unpacked(valid)
    a, b = rng.sample(sorted(members), 2)
    members[a], members[b] = members[b], members[a]
    return packed(members)


def missing_or_doubled_members(rng: random.Random, valid: bytes) -> bytes:
    members = unpacked(valid)
    name = rng.choice(sorted(members))
    if rng.random() < 0.5:
        content = members.pop(name)
        if rng.random() < 0.5:
            members[rng.choice(["x.npy", "../" + name, name[:-4], name.upper(), "\r\n\x1b[31m" * 500 + name])] = content
        return packed(members)
    file = io.BytesIO(valid)
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, about the second entry of this name
        archive.writestr(zipfile.ZipInfo(name), members[rng.choice(sorted(members))])
    return file.getvalue()


def array_headers(rng: random.Random, valid: bytes) -> bytes:
    members = unpacked(valid)
    name = rng.choice(sorted(members))
    big, shape = (
        rng.choice([2**31, 2**33, 2**62, 2**70, -1, 10**4000]),
        rng.choice(["(10, 2)", "(10, 2, 3)", "(2, 4)", "()"]),
    )
    descr = rng.choice(
        ["<f4", "|O", "<f8", "|b1", "<i8", "|i1", "<U1", f"<U{10**9}", "|V8", "<M8[s]", "|S1", "|" + "x" * 500]
    )
    choices = [
        f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}",
        f"{{'descr': '<f4', 'fortran_order': True, 'shape': ({big}, 2), }}" if big < 2**100 else "9" * 5000,
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**20}, {2**14}, 1), }}",
        "(" * rng.choice([10, 900, 60_000]),
        "{" * 300 + "}" * 300,
        "-" * 900 + "1",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (10,), }",
        "{'descr': '<f4', 'shape': (10, 2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5, True)}",
        "'unclosed",
        "\x00\x1b[2J",
        "__import__('os').mkdir('canary')",
        " " * rng.choice([0, 2000, 60_000]),
    ]
    members[name] = with_header(members[name], rng.choice(choices))
    if rng.random() < 0.2:
        members[name] = members[name][:6] + bytes([rng.randrange(256), rng.randrange(3)]) + members[name][8:]
    return packed(members)


def metadata(rng: random.Random, valid: bytes) -> bytes:
    members = unpacked(valid)
    header: Any = json.loads(str(np.load(io.BytesIO(members["metadata.npy"]))))
    odd: list[Any] = [
        None,
        5,
        -1,
        2**70,
        1e308,
        True,
        "x",
        "\x1b[31m\n" * 1000,
        [],
        {},
        [[]],
        ["a", "a"],
        [3, None],
        "concurrent",
    ]
    header[rng.choice([*header, "selected"])] = rng.choice(odd)
    text = json.dumps(header)
    text = rng.choice(
        [
            *[text] * 5,
            text.replace("toy", "\udcff\0"),
            text[: rng.randrange(len(text))],
            "[" * 100_000,
            "{" + '"a":{' * 50_000,
            text.replace("1", "9" * 5000, 1),
            text.replace("1", rng.choice(["NaN", "Infinity", "1e999"]), 1),
            text[:-1] + f', "long": "{"x" * 2_000_000}"}}',
            text[:-1] + ', "deep": ' + "[" * 5000 + "]" * 5000 + "}",
        ]
    )
    members["metadata.npy"] = (
        npy(text) if rng.random() < 0.9 else npy(rng.choice([text.encode(errors="surrogatepass"), [text], 3, {"a": 1}]))
    )
    if rng.random() < 0.1:  # characters that do not exist
        members["metadata.npy"] = members["metadata.npy"][:-4] + b"\xff\xff\xff\xff"
    return packed(members)


def values(rng: random.Random, valid: bytes) -> bytes:
    members = unpacked(valid)
    name = rng.choice(["observations.npy", "alive.npy", "rewards.npy", "offsets.npy", "won.npy", "actions.npy"])
    content = bytearray(members[name])
    size = {"offsets.npy": 8, "actions.npy": 8, "alive.npy": 1, "won.npy": 1}.get(name, 4)
    numbers = (len(content) - 128) // size
    start = 128 + size * rng.randrange(numbers)
    if size == 4:
        content[start : start + 4] = struct.pack("<f", rng.choice([np.nan, np.inf, -np.inf, 3e38]))
    else:
        content[start : start + size] = rng.choice([b"\xff", b"\x7f", b"\x05"]) * size
    members[name] = bytes(content)
    return packed(members)


def actions_that_are_not_finite(rng: random.Random, valid: bytes) -> bytes:
    return packed({**unpacked(valid), "actions.npy": npy(np.full((10, 2, 1), rng.choice([np.nan, np.inf]), np.float32))})


def other_compression(rng: random.Random, valid: bytes) -> bytes:
    return packed(unpacked(valid), rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))


def directory_claims(rng: random.Random, valid: bytes) -> bytes:
    """Sizes, flags and methods in the archive's directory (and, for an encrypted entry, in front of it) that are wrong."""
    content, at = bytearray(valid), -1
    for _ in range(rng.randrange(1, 8)):
        at = content.find(b"PK\1\2", at + 1) if content.find(b"PK\1\2", at + 1) >= 0 else at
    where, form = rng.choice([(8, "<H"), (10, "<H"), (20, "<I"), (24, "<I"), (16, "<I"), (42, "<I")])
    value = rng.choice([1, 9, 12, 99, 400, 2**16 - 1, 2**31 - 1, 2**32 - 1])
    content[at + where : at + where + struct.calcsize(form)] = struct.pack(form, value % 256 ** struct.calcsize(form))
    if where == 8:
        (start,) = struct.unpack("<I", content[at + 42 : at + 46])
        content[start + 6 : start + 8] = struct.pack("<H", value % 65536)
    return bytes(content)


def bombs(rng: random.Random, valid: bytes) -> bytes:
    """A few kilobytes that swell to 40 MB, with sizes that may fit together."""
    members, steps = unpacked(valid), 5_000_000
    if rng.random() < 0.5:
        members["observations.npy"] = npy(np.zeros((steps, 2, 1), np.float32))
    else:
        members[rng.choice(sorted(members))] = bytes(8 * steps)
    return packed(members)


def no_archives(rng: random.Random, valid: bytes) -> bytes:
    class Canary:
        def __reduce__(self) -> Any:
            return print, ("the file was unpickled",)

    return rng.choice([b"", b"hello", pickle.dumps(Canary()), npy(np.zeros(3)), rng.randbytes(200), b"PK\5\6" + bytes(18)])


def pickled_members(rng: random.Random, valid: bytes) -> bytes:
    members = unpacked(valid)
    members[rng.choice(sorted(members))] = npy(np.array([{"a": 1}] * 20, dtype=object).reshape(10, 2))
    return packed(members)


KINDS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(flips, directory_flips, truncation, inserted_bytes, swapped_members, missing_or_doubled_members, array_headers),
    *(
        metadata,
        values,
        actions_that_are_not_finite,
        other_compression,
        directory_claims,
        bombs,
        no_archives,
        pickled_members,
    ),
)


# --- reading them ------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What loading many damaged files did.

    Attributes:
        refused: How many of each kind gave a sentence.
        harmless: How many of each kind were read and are valid.
        leaks: One line for each that broke the rules.
        longest: The longest sentence, without the file's name.
        slowest: Seconds and kind of the slowest file.
    """

    refused: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    longest: str = ""
    slowest: tuple[float, str] = (0.0, "")


def attack(count: int, seed: int, folder: Path, *, real: bool = True, max_bytes: int = 10_000_000) -> Report:
    """Load ``count`` damaged files.

    Args:
        count: How many.
        seed: For the damage.
        folder: Where to write them.
        real: Damage a file of the repository, too, which takes longer.
        max_bytes: What ``Demonstrations.load`` is given.
    """
    rng, report = random.Random(seed), Report()
    valid = [small_file(), small_file(1, zipfile.ZIP_STORED)]
    recorded = RECORDED.read_bytes()
    path = folder / "damaged.npz"
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        large = real and kind in (flips, directory_flips, truncation, inserted_bytes) and rng.random() < 0.2
        path.write_bytes(kind(rng, recorded if large else rng.choice(valid)))
        start = time.perf_counter()
        fault = _load(path, kind.__name__, report, max_bytes=100_000_000 if large else max_bytes)
        report.slowest = max(report.slowest, (time.perf_counter() - start, kind.__name__))
        if fault:
            kept = path.rename(folder / f"leak{len(report.leaks)}_{kind.__name__}.npz")
            report.leaks.append(f"{kept}: {fault}")
    return report


def _load(path: Path, kind: str, report: Report, max_bytes: int) -> str | None:
    """Load one file; the rule that was broken, if any."""
    try:
        demos = Demonstrations.load(path, max_bytes=max_bytes)
    except ValueError as error:
        report.refused[kind] += 1
        sentence = str(error).replace(str(path), "FILE")
        report.longest = max(report.longest, sentence, key=len)
        if len(sentence) > LONGEST or not sentence.isprintable() or "allow_pickle" in sentence:
            return f"the sentence {sentence[:1000]!r}"
        return None if sentence.startswith("FILE is not a usable demonstrations file: ") else f"no sentence: {sentence!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:500]}"
    report.harmless[kind] += 1
    numbers = (demos.padded_observations, demos.rewards, demos.actions)
    if not all(np.isfinite(array).all() for array in numbers) or not np.isin(demos.won, (-1, 0, 1)).all():
        return "values that are not valid"
    if demos.alive.view(np.uint8).max() > 1 or demos.style not in ("concurrent", "shuffled", "mixed"):
        return "values that are not valid"
    demos.save(path)  # whatever was read can be written, and read again
    Demonstrations.load(path)
    return None


def main(count: int, seed: int) -> int:
    """Print the report; 1 if there is a leak."""
    folder = Path(tempfile.mkdtemp())
    attack(len(KINDS), seed + 1, folder)  # whatever is imported and allocated once is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = attack(count, seed, folder)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{'kind':<30} {'refused':>8} {'harmless':>8}")
    for kind in (kind.__name__ for kind in KINDS):
        print(f"{kind:<30} {report.refused[kind]:>8} {report.harmless[kind]:>8}")
    print(f"longest sentence: {len(report.longest)} characters: {report.longest}")
    print(f"slowest: {report.slowest[0]:.2f} s ({report.slowest[1]}); peak memory grew by {grown:.0f} MiB")
    print(f"{len(report.leaks)} leaks in {count} files", *report.leaks, sep="\n")
    return 1 if report.leaks else 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
