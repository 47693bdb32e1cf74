"""Demonstration files: saved and loaded, wrong, damaged and hostile ones."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from dm2_wrappers import Demonstrations
from dm2_wrappers.demonstrations import npz
from tests.attack.files import KINDS, LONGEST, attack, npy, packed, small_file, unpacked, with_header
from tests.helpers.permissions import without_permission
from tests.helpers.small_demonstrations import make


@pytest.mark.parametrize(
    "demos",
    [make(), make().shuffled(3), Demonstrations.mix({"agent_1": make(), "agent_0": make().subset(2)})],
    ids=["concurrent", "shuffled", "mixed"],
)
def test_save_and_load(tmp_path, demos):
    path = tmp_path / "folder" / "demos.npz"
    demos.save(path)
    again = Demonstrations.load(str(path))
    for name in ("padded_observations", "alive", "actions", "rewards", "offsets", "won"):
        old, new = getattr(demos, name), getattr(again, name)
        assert old.dtype == new.dtype
        assert np.array_equal(old, new)
    assert (again.agents, again.sizes, again.style, again.env_id) == (
        demos.agents,
        demos.sizes,
        demos.style,
        demos.env_id,
    )
    assert again.win_rate == demos.win_rate
    assert again.metadata["win_rate"] == demos.win_rate
    assert [file.name for file in path.parent.iterdir()] == ["demos.npz"]  # no temporary file is left


def test_arrays_of_ones_own_are_saved_in_the_files_types(tmp_path):
    own = replace(make(), rewards=np.ones((9, 2)), actions=np.zeros((9, 2), np.int32), metadata={})
    own.save(tmp_path / "own.npz")
    again = Demonstrations.load(tmp_path / "own.npz")
    assert (again.rewards.dtype, again.actions.dtype) == (np.float32, np.int64)
    assert again.env_id is None


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "demos.npz"
    make().save(path)

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        make(seed=5).save(path)
    assert Demonstrations.load(path).metadata["seed"] == 0
    assert len(list(tmp_path.iterdir())) == 1


def saved(tmp_path, **changes):
    """A demonstrations file with some of its entries replaced, or left out where the change is None."""
    path = tmp_path / "demos.npz"
    make().save(path)
    with np.load(path) as archive:
        entries = dict(archive)
    header = json.loads(str(entries["metadata"]))
    header.update(changes.pop("header", {}))
    entries["metadata"] = np.array(json.dumps(header))
    entries.update(changes)
    np.savez(path, **{name: array for name, array in entries.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alive": None}, "lacks alive"),
        ({"metadata": np.array("{")}, "metadata"),
        ({"metadata": np.array("[]")}, "metadata"),
        ({"header": {"format_version": 99}}, "version 99"),
        ({"header": {"sizes": [3]}}, "size each"),
        ({"header": {"sizes": [5, 2]}}, "observations .* shape"),
        ({"header": {"agents": ["a", "a"]}}, "unique"),
        ({"alive": np.ones((4, 2), bool)}, r"alive .* \(9, 2\)"),
        ({"rewards": np.ones((9, 2))}, "rewards .* float32"),
        ({"won": np.ones((2, 7), np.int8)}, "won .* shape"),
        ({"offsets": np.array([[0, 2, 5, 10]] * 2)}, "offsets"),
        ({"offsets": np.array([[0, 5, 2, 9]] * 2)}, "offsets"),
        ({"offsets": np.arange(4)}, "offsets"),
        ({"observations": np.full((9, 2, 3), np.nan, np.float32)}, "NaN"),
        ({"actions": np.full((9, 2), "x")}, "actions"),
    ],
)
def test_wrong_contents_are_one_clear_error(tmp_path, changes, message):
    path = saved(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        Demonstrations.load(path)
    assert "demos.npz is not a usable demonstrations file" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"record some with Demonstrations.record"):
        Demonstrations.load(tmp_path / "nothing.npz")


def test_truncated_and_foreign_files(tmp_path):
    path = tmp_path / "demos.npz"
    make().save(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"hello", whole[:200] + b"\xff" * 60 + whole[260:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a usable demonstrations file"):
            Demonstrations.load(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"not an \.npz"):
        Demonstrations.load(tmp_path / "array.npy")
    np.savez(path, arr_0=np.zeros(3))
    with pytest.raises(ValueError, match=r"lacks actions.*has arr_0"):
        Demonstrations.load(path)


class Trap:
    """Unpickling one of these is the failure."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def test_nothing_is_ever_unpickled(tmp_path):
    path = saved(tmp_path, actions=np.array([Trap()] * 18, dtype=object).reshape(9, 2))
    with pytest.raises(ValueError, match=r"'actions' holds pickled Python objects"):
        Demonstrations.load(path)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"not an \.npz"):
        Demonstrations.load(path)


def test_a_thousand_episodes_load_in_under_a_second(tmp_path):
    steps, agents, size, episodes = 25_000, 5, 140, 1000
    rng = np.random.default_rng(0)
    observations = np.zeros((steps, agents, size), np.float32)
    observations[:, :, ::5] = rng.random((steps, agents, size // 5), dtype=np.float32)  # SMAX's are 82 % zeros
    demos = Demonstrations(
        agents=tuple("abcde"),
        sizes=(size,) * agents,
        padded_observations=observations,
        alive=np.ones((steps, agents), bool),
        actions=np.zeros((steps, agents), np.int64),
        rewards=np.zeros((steps, agents), np.float32),
        offsets=np.tile(np.arange(episodes + 1) * 25, (agents, 1)),
        won=np.zeros((agents, episodes), np.int8),
    )
    demos.save(tmp_path / "big.npz")
    start = time.process_time()
    loaded = Demonstrations.load(tmp_path / "big.npz")
    assert time.process_time() - start < 1.0
    assert len(loaded) == 1000


# --- damaged and hostile files ----------------------------------------------------------------------------------------


def test_files_damaged_at_random_give_a_sentence_or_valid_demonstrations(tmp_path):
    """``python -m tests.attack.files 2000`` damages more of them, and larger ones."""
    count = int(os.environ.get("DM2_DAMAGED", "10")) * len(KINDS)
    report = attack(count, seed=0, folder=tmp_path, real=False)
    assert not report.leaks, "\n".join(report.leaks)
    assert {kind.__name__ for kind in KINDS} <= report.refused.keys()
    assert report.refused.total() + report.harmless.total() == count


def rejected(path, *, match, **options):
    """The sentence with which a file is refused, and the most memory that this took, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as caught:
            Demonstrations.load(path, **options)
        return str(caught.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_small_file_of_many_zeros_is_refused_before_it_is_read(tmp_path):
    members = unpacked(small_file())
    members["observations.npy"] = npy(np.zeros((20_000_000, 2, 1), np.float32))
    path = tmp_path / "demos.npz"
    path.write_bytes(packed(members))
    _, peak = rejected(path, match="observations .* shape")
    assert peak < 5_000_000
    for name in ("alive", "actions", "rewards"):
        members[f"{name}.npy"] = npy(np.zeros((20_000_000, 2), {"alive": bool, "actions": int}.get(name, np.float32)))
    header = json.loads(str(np.load(io.BytesIO(members["metadata.npy"]))))
    members["metadata.npy"] = npy(json.dumps({**header, "sizes": [1, 1]}))
    path.write_bytes(packed(members))
    assert path.stat().st_size < 2_000_000
    _, peak = rejected(path, match=r"take 680,000,070 bytes, over max_bytes=10,000,000; pass a larger", max_bytes=10_000_000)
    assert peak < 5_000_000


def test_the_limit_is_what_is_given_or_grows_with_the_file(tmp_path, monkeypatch):
    make().save(tmp_path / "demos.npz")
    size = 9 * 2 * (3 * 4 + 1 + 8 + 4) + 2 * 4 * 8 + 2 * 3
    assert len(Demonstrations.load(tmp_path / "demos.npz", max_bytes=size)) == 3
    rejected(tmp_path / "demos.npz", match=f"take {size} bytes, over max_bytes={size - 1}", max_bytes=size - 1)
    with pytest.raises(ValueError, match="max_bytes must be None or an integer of at least 1, got 0"):
        Demonstrations.load(tmp_path / "demos.npz", max_bytes=0)
    assert (npz.MAX_BYTES, npz.MAX_RATIO) == (2**30, 32)
    monkeypatch.setattr(npz, "MAX_BYTES", 100)
    assert len(Demonstrations.load(tmp_path / "demos.npz")) == 3
    zeros = make(lengths=(50_000, 1, 1))
    replace(zeros, padded_observations=np.zeros_like(zeros.padded_observations), actions=np.zeros_like(zeros.actions)).save(
        path := tmp_path / "zeros.npz"
    )
    rejected(path, match=f"over max_bytes={32 * path.stat().st_size:,}; pass a larger")


def test_metadata_are_limited_in_files_and_when_saved(tmp_path):
    path = tmp_path / "demos.npz"
    members = unpacked(small_file())
    path.write_bytes(packed({**members, "metadata.npy": npy("x" * 5_000_000)}))
    _, peak = rejected(path, match="metadata have 5,000,000 characters, more than 1,048,576")
    assert peak < 5_000_000
    with pytest.raises(ValueError, match=r"metadata .* take 2,000,\d+ characters .* at most 1,048,576; leave out"):
        replace(make(), metadata={"log": "x" * 2_000_000}).save(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_numpys_own_compression_is_read(tmp_path, method):
    path = tmp_path / "demos.npz"
    path.write_bytes(packed({**unpacked(small_file()), "metadata.npy": bytes(50_000_000)}, method))
    _, peak = rejected(path, match="compressed in a way that NumPy does not use")
    assert peak < 5_000_000


def patched(content, field, value, member=0):
    """The archive with another number in its directory's entry of a member."""
    at = -1
    for _ in range(member + 1):
        at = content.index(b"PK\1\2", at + 1)
    where, form = {"flags": (8, "<H"), "compressed": (20, "<I"), "size": (24, "<I")}[field]
    number = struct.pack(form, value)
    return content[: at + where] + number + content[at + where + len(number) :]


def test_what_the_directory_claims(tmp_path):
    path, content = tmp_path / "demos.npz", small_file()
    names = list(unpacked(content))
    for member, name in enumerate(names):
        path.write_bytes(patched(content, "flags", 1, member))
        rejected(path, match=f"{name}' is encrypted; save it without a password")
        path.write_bytes(patched(content, "size", 2**31, member))
        rejected(path, match=f"{name}' claims 2,147,483,648 bytes, but has room for fewer")


def test_an_entry_that_is_there_twice(tmp_path):
    path = tmp_path / "demos.npz"
    path.write_bytes(small_file())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("won.npy", unpacked(small_file())["won.npy"])
    rejected(path, match="has 2 entries named 'won.npy', but one was expected")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (10, 2, 900000), }",
            "needs 72,000,000 bytes, but the file has 240",
        ),
        ("(" * 900, "damaged header"),
        ("'unclosed", "damaged header"),
        ("9" * 900, "damaged header"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2, 3)}", r"damaged header \(shape \(-1, 2, 3\)"),
        (" " * 5000, "header of 5,0[0-9]+ bytes, more than NumPy writes"),
        (
            "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (10, 2, 3)}",
            r"must hold numbers, but its dtype is <M8\[s\]",
        ),
        (
            "{'descr': '|O', 'fortran_order': False, 'shape': (10, 2, 3)}",
            "holds pickled Python objects, which are never read",
        ),
    ],
)
def test_damaged_array_headers(tmp_path, header, message):
    members = unpacked(small_file())
    members["observations.npy"] = with_header(members["observations.npy"], header)
    (tmp_path / "demos.npz").write_bytes(packed(members))
    sentence, peak = rejected(tmp_path / "demos.npz", match=message)
    assert "allow_pickle" not in sentence
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"won": np.full((2, 3), 5, np.int8)}, "won must hold 1 .* got 5"),
        ({"actions": np.full((9, 2, 1), np.nan, np.float32)}, "actions .* NaN"),
        ({"rewards": np.full((9, 2), np.inf, np.float32)}, "rewards .* NaN or infinite"),
        ({"header": {"style": "other"}}, "style .* 'concurrent', 'shuffled', 'mixed', got 'other'"),
        ({"header": {"agents": [0, 1]}}, "names, each a string"),
        ({"header": {"agents": "ab"}}, "names, each a string"),
        ({"header": {"sizes": [3.0, 2]}}, "each size must be an integer"),
        ({"header": {"policy": float("nan")}}, "JSON"),
        ({"header": {"x\x1b[31m\n": "\x1b[2J" * 5000, "agents": ["\x1b[2J" * 5000] * 2}}, "unique agents"),
        ({"metadata": np.array("[" * 100_000)}, "metadata are not JSON"),
        ({"metadata": np.array("[1, 2]")}, "metadata are not JSON with format_version"),
        ({"metadata": np.array(["{}"])}, "metadata are not one string"),
        ({"metadata": np.array(5)}, "metadata are not one string"),
    ],
)
def test_values_and_metadata_of_files_are_checked(tmp_path, changes, message):
    path = saved(tmp_path, **changes)
    sentence, _ = rejected(path, match=message)
    assert sentence.isprintable()
    assert len(sentence) - len(str(path)) <= LONGEST


def test_bytes_that_are_neither_true_nor_false(tmp_path):
    members = unpacked(small_file())
    members["alive.npy"] = members["alive.npy"][:-1] + b"\7"
    (tmp_path / "demos.npz").write_bytes(packed(members))
    rejected(tmp_path / "demos.npz", match="bytes that are neither True nor False")


def test_a_damaged_array_fails_its_checksum(tmp_path):
    content = bytearray(small_file(method=zipfile.ZIP_STORED))
    content[content.index(b"rewards.npy") + 200] ^= 1
    (tmp_path / "demos.npz").write_bytes(content)
    rejected(tmp_path / "demos.npz", match=r"damaged \(BadZipFile: Bad CRC-32 .*; save or copy it again")


def test_fortran_order_and_big_endian_files_are_read(tmp_path):
    path = saved(tmp_path, observations=np.asfortranarray(make().padded_observations), rewards=np.ones((9, 2), ">f4"))
    demos = Demonstrations.load(path)
    np.testing.assert_array_equal(demos.padded_observations, make().padded_observations)
    np.testing.assert_array_equal(demos.rewards, make().rewards)
    assert demos.rewards.dtype == np.float32


def test_folders_pipes_and_files_without_permission(tmp_path):
    with pytest.raises(IsADirectoryError, match="This is a folder, but a demonstrations file was expected"):
        Demonstrations.load(tmp_path)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(ValueError, match="not a regular file"):
        Demonstrations.load(tmp_path / "pipe.npz")
    make().save(tmp_path / "demos.npz")
    with (
        without_permission(tmp_path / "demos.npz"),
        pytest.raises(PermissionError, match="no permission to read this demonstr"),
    ):
        Demonstrations.load(tmp_path / "demos.npz")


@pytest.mark.parametrize("path", [None, 3, b"experts.npz"])
def test_what_is_no_file_name(path):
    for use in (make().save, Demonstrations.load, Demonstrations.import_pymarl):
        with pytest.raises(TypeError, match=r"must be the name of a file, a string or a pathlib\.Path, got"):
            use(path)


def test_a_small_file_of_zeros_needs_no_larger_limit(tmp_path):
    demos, path = Demonstrations.from_episodes([{"a": np.zeros((10_000, 50))}]), tmp_path / "zeros.npz"
    demos.save(path)
    assert demos.padded_observations.nbytes > 2 * npz.MAX_RATIO * path.stat().st_size
    assert len(Demonstrations.load(path)) == 1


@pytest.mark.parametrize("order", "<>")
def test_metadata_of_either_byte_order_and_padded_as_numpy_does(tmp_path, order):
    path = tmp_path / "demos.npz"
    make().save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    text = str(arrays.pop("metadata"))
    np.savez(path, metadata=np.array(text, f"{order}U{len(text) + 3}"), **arrays)
    assert Demonstrations.load(path).metadata == make().metadata | {"win_rate": 2 / 3}
