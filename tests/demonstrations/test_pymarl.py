"""Recordings of the paper's implementation: what comes out of them, and what hostile ones cannot do."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import time
import tracemalloc
import zipfile
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from dm2_wrappers import Demonstrations
from dm2_wrappers.demonstrations.pymarl import array_pickles, pickle_machine
from tests.attack.pickles import Call, array_of, dumps, episodes, npy, npz, read_all
from tests.helpers.permissions import without_permission

ROWS, WIDTH = 8, 3  # a limit of seven steps
NO_OP, STOP, ATTACK = 0, 1, 6


class Recorder:
    """Writes as PyMARL does: each agent's views of tensors [1, limit + 1, agents, ...], in a deque of dicts."""

    def __init__(self, agents: int) -> None:
        self.episodes: list[deque] = [deque(maxlen=5100) for _ in range(agents)]

    def add(self, rows: list[list[int | None]]) -> None:
        """An episode by its actions, [row][agent]; None is a dead agent. Agent k sees 100 e + 10 k + row + 1."""
        agents, e = len(self.episodes), len(self.episodes[0])
        obs = torch.zeros(1, ROWS, agents, WIDTH)
        actions = torch.zeros(1, ROWS, agents, 1, dtype=torch.long)
        for t, row in enumerate(rows):
            for k, action in enumerate(row):
                if action is not None:
                    obs[0, t, k] = 100 * e + 10 * k + t + 1
                    actions[0, t, k] = action
        for k, storage in enumerate(self.episodes):
            storage.append({"obs": obs[:, :, k, :], "actions": actions[:, :, k, :]})

    def save(self, folder: Path, suffix: str = "npz") -> Path:
        for k, storage in enumerate(self.episodes):
            if suffix == "npz":
                np.savez_compressed(folder / f"agent_{k}.npz", storage)
            else:
                np.save(folder / f"agent_{k}.npy", np.asanyarray(storage))
        return folder


WON = [[ATTACK, 2], [ATTACK, None], [STOP, None]]  # two steps; the last row is after the end
LOST = [[2, ATTACK], [2, ATTACK], [None, ATTACK]]  # three steps; after the end nobody sees anything
TIMED_OUT = [[3, 3]] * (ROWS - 1) + [[ATTACK, 3]]  # seven steps; the last row is after the end, whatever they choose
LOST_ON_THE_RUN = [[ATTACK, 2], [None, 2], [None, 2]]  # really three steps, but it looks like a victory after two


def recorded() -> Recorder:
    recorder = Recorder(2)
    for rows in (WON, LOST, TIMED_OUT, LOST_ON_THE_RUN):
        recorder.add(rows)
    return recorder


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_padding_is_cut_and_the_dead_are_marked(tmp_path, suffix):
    demos = Demonstrations.import_pymarl(recorded().save(tmp_path, suffix), env_id="smac:2m")
    assert demos.agents == ("agent_0", "agent_1")
    assert demos.sizes == (WIDTH, WIDTH)
    assert demos.env_id == "smac:2m"
    assert demos.style == "concurrent"
    assert demos.win_rate is None
    assert demos.won.tolist() == [[-1] * 4] * 2
    np.testing.assert_array_equal(demos.offsets, [[0, 2, 5, 12, 14]] * 2)
    first = [[1, 2], [101, 102], range(201, 208), [301]]
    second = [[11], [111, 112, 113], range(211, 218), [311, 312]]
    for agent, seen in zip(demos.agents, (first, second), strict=True):
        expected = np.repeat(np.concatenate(seen)[:, None], WIDTH, axis=1)
        np.testing.assert_array_equal(demos.observations(agent), expected)
    np.testing.assert_array_equal(demos.actions[:5], [[6, 2], [6, 0], [2, 6], [2, 6], [0, 6]])
    assert not demos.rewards.any()
    saved = tmp_path / "saved.npz"
    demos.save(saved)
    assert len(Demonstrations.load(saved)) == 4


def test_what_the_learners_also_saw_is_appended(tmp_path):
    folder = recorded().save(tmp_path)
    demos = Demonstrations.import_pymarl(folder, agents=["marine_0", "marine_1"], last_action=7, agent_id=True)
    demos.check_compatible(["marine_0", "marine_1"], [WIDTH + 7 + 2] * 2)
    seen = demos.observations("marine_1")
    np.testing.assert_array_equal(seen[0], [11] * 3 + [0] * 7 + [0, 1])  # nothing was done before
    np.testing.assert_array_equal(seen[1], [111] * 3 + [0] * 7 + [0, 1])  # nor in the episode before this one
    np.testing.assert_array_equal(seen[2], [112] * 3 + [0, 0, 0, 0, 0, 0, 1] + [0, 1])
    assert not demos.padded_observations[1, 1].any()  # dead: it sees nothing at all
    assert Demonstrations.import_pymarl(folder, agent_id=True).sizes == (WIDTH + 2,) * 2
    assert Demonstrations.import_pymarl(folder, last_action=7).sizes == (WIDTH + 7,) * 2
    with pytest.raises(ValueError, match="agent 'agent_0' has actions up to 6, but last_action=6"):
        Demonstrations.import_pymarl(folder, last_action=6)


def test_only_the_first_episodes(tmp_path):
    demos = Demonstrations.import_pymarl(recorded().save(tmp_path), episodes=2)
    np.testing.assert_array_equal(demos.offsets, [[0, 2, 5]] * 2)


def test_a_recording_of_older_versions():
    """Written by the class ``Recorder`` under torch 1.13.1 and NumPy 1.26.4."""
    demos = Demonstrations.import_pymarl(Path(__file__).parents[1] / "data" / "pymarl_torch1")
    np.testing.assert_array_equal(demos.offsets, [[0, 2, 5, 12, 14]] * 2)
    np.testing.assert_array_equal(demos.observations("agent_1")[1:4, 0], [111, 112, 113])


def test_a_recording_from_a_gpu(tmp_path):
    """Storages that say that they were on one are read into main memory."""
    path = recorded().save(tmp_path, "npy") / "agent_0.npy"
    content = path.read_bytes()
    for inner in {a for _, a, _ in pickletools.genops(content[content.index(b"\n") + 1 :]) if isinstance(a, bytes)}:
        there = inner.replace(b"ctorch\n", b"ctorch.cuda\n").replace(b"\3\0\0\0cpu", b"\6\0\0\0cuda:0")
        if there != inner:
            content = content.replace(sized(inner), sized(there))
    assert b"cuda:0" in content
    path.write_bytes(content)
    np.testing.assert_array_equal(Demonstrations.import_pymarl(tmp_path).observations("agent_0")[:2, 0], [1, 2])


def sized(content: bytes) -> bytes:
    """As pickle writes bytes."""
    size = len(content)
    return (b"C" + bytes([size]) if size < 256 else b"B" + size.to_bytes(4, "little")) + content


def test_arrays_in_place_of_tensors(tmp_path):
    items = [{name: x.numpy() for name, x in item.items()} for item in episodes()]
    items[0]["obs"] = items[0]["obs"].astype(">f8")
    for protocol in range(2, 6):
        (tmp_path / "agent_0.npy").write_bytes(npy(pickle.dumps(array_of(items), protocol)))
        demos = Demonstrations.import_pymarl(tmp_path)
        np.testing.assert_array_equal(demos.offsets, [[0, 3, 7]])
        np.testing.assert_array_equal(demos.observations("agent_0")[:3], items[0]["obs"][0, :3].astype(np.float32))


def test_what_does_not_fit_together(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        Demonstrations.import_pymarl(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no agent_0"):
        Demonstrations.import_pymarl(tmp_path)
    folder = recorded().save(tmp_path)
    with pytest.raises(ValueError, match="files of 2 agents, but 1 names"):
        Demonstrations.import_pymarl(folder, agents=["marine_0"])
    with pytest.raises(ValueError, match="episodes must be None or an integer of at least 1, got 0"):
        Demonstrations.import_pymarl(folder, episodes=0)
    with pytest.raises(ValueError, match=r"expected 5 episodes of every agent.*\[4, 4\]"):
        Demonstrations.import_pymarl(folder, episodes=5)
    with pytest.raises(ValueError, match=r"agent_0\.npz is not a usable.*over max_bytes=100"):
        Demonstrations.import_pymarl(folder, max_bytes=100)
    (folder / "agent_1.npz").rename(folder / "agent_2.npz")
    with pytest.raises(ValueError, match="has agent_2, but lacks agent_1"):
        Demonstrations.import_pymarl(folder)
    recorder = Recorder(2)
    recorder.add(WON)
    recorder.episodes[1][0] = {name: x[:, :-1] for name, x in recorder.episodes[1][0].items()}
    with pytest.raises(ValueError, match=r"recordings of episode 0 have different numbers of rows: \[7, 8\]"):
        Demonstrations.import_pymarl(recorder.save(made(tmp_path / "shorter")))
    recorder = Recorder(1)
    recorder.add([[ATTACK]])
    recorder.add([[ATTACK]])
    recorder.episodes[0][1]["obs"] = recorder.episodes[0][1]["obs"][..., :2]
    with pytest.raises(ValueError, match=r"agent_0.*episodes 0 and 1 have different numbers of features: 3 and 2"):
        Demonstrations.import_pymarl(recorder.save(made(tmp_path / "narrower")))
    recorder = Recorder(1)
    recorder.add([])
    with pytest.raises(ValueError, match="episode 0 holds nothing but zeros"):
        Demonstrations.import_pymarl(recorder.save(made(tmp_path / "empty")))


def of_one_agent(folder: Path, **changes) -> Path:
    """A recording of one agent and one episode, of which some arrays are other ones."""
    recorder = Recorder(1)
    recorder.add([[2], [ATTACK], [STOP]])
    recorder.episodes[0][0].update(changes)
    folder.mkdir(exist_ok=True)
    return recorder.save(folder)


ONE_STEP = {"obs": torch.ones(1, 2, WIDTH), "actions": torch.ones(1, 2, 1, dtype=torch.long)}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({name: part[:, :1] for name, part in ONE_STEP.items()}, r"episode 0 has obs \(1, 1, 3\): no step"),
        ({"obs": torch.ones(1, ROWS, WIDTH).long()}, "obs of int64 and actions of int64, but floats and integers were"),
        ({"actions": torch.ones(1, ROWS, 1)}, "obs of float32 and actions of float32, but floats and integers were"),
        ({"obs": torch.ones(ROWS, WIDTH)}, r"episode 0 has obs \(8, 3\) and actions \(1, 8, 1\)"),
        ({"obs": torch.ones(2, ROWS, WIDTH)}, r"episode 0 has obs \(2, 8, 3\)"),
        ({"actions": torch.ones(1, ROWS, 2, dtype=torch.long)}, r"and actions \(1, 8, 2\)"),
        ({"actions": torch.ones(ROWS, 1, dtype=torch.long)}, r"and actions \(8, 1\)"),
        ({"obs": torch.full((1, ROWS, WIDTH), torch.nan)}, "the obs of episode 0 hold NaN or infinite values"),
        ({"actions": torch.full((1, ROWS, 1), -1)}, "actions of episode 0 are not numbers of actions: -1 to -1"),
        ({"actions": torch.full((1, ROWS, 1), 2**31)}, "actions of episode 0 are not numbers of actions: 2147483648 to"),
        ({"obs": 3.0}, "the obs or actions of episode 0 are no array or tensor"),
    ],
)
def test_episodes_that_are_none(tmp_path, changes, match):
    folder = of_one_agent(tmp_path, **changes)
    with pytest.raises(ValueError, match=rf"agent_0\.npz is not a usable recording of PyMARL's: .*{match}"):
        Demonstrations.import_pymarl(folder)


def test_the_shortest_episode_and_the_largest_action(tmp_path):
    demos = Demonstrations.import_pymarl(of_one_agent(tmp_path / "short", **ONE_STEP))
    assert demos.offsets.tolist() == [[0, 1]]
    actions = torch.full((1, ROWS, 1), 2**31 - 1)
    assert Demonstrations.import_pymarl(of_one_agent(tmp_path / "large", actions=actions)).actions.max() == 2**31 - 1


def test_max_bytes_is_the_most_that_the_observations_may_take(tmp_path):
    folder = of_one_agent(tmp_path)
    most = 4 * (WIDTH + 1000) * 2  # two steps of one agent
    options = {"last_action": 1000}
    assert len(Demonstrations.import_pymarl(folder, max_bytes=most, **options)) == 1
    with pytest.raises(ValueError, match=rf"would take {most:,} bytes, over max_bytes={most - 1:,}"):
        Demonstrations.import_pymarl(folder, max_bytes=most - 1, **options)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_what_a_pickle_names_is_refused_by_its_name(tmp_path):
    (tmp_path / "agent_0.npy").write_bytes(npy(dumps(Call("os", "system", ("true",)), 4)))
    with pytest.raises(ValueError, match=r"agent_0\.npy is not a usable .*: it names 'os\.system'"):
        Demonstrations.import_pymarl(tmp_path)
    with pytest.raises(ValueError, match="opcode INST"):
        array_pickles.load(b"(X\4\0\0\0trueios\nsystem\n.")
    nested = io.BytesIO()
    torch.save({"evil": Path("x")}, nested, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"it names 'pathlib(\._local)?\.PosixPath'"):
        array_pickles.load(dumps(Call("torch.storage", "_load_from_bytes", (nested.getvalue(),)), 4))


def test_the_same_bytes_again_and_again_do_not_fill_the_memory():
    one = pickle.dumps(torch.zeros(1000), 4)
    storage = next(a for _, a, _ in pickletools.genops(one) if isinstance(a, bytes))
    function = b"ctorch.storage\n_load_from_bytes\n"
    once, again = function + sized(storage) + b"q\1\x85R", function + b"h\1\x85R"
    assert array_pickles.load(one).shape == (1000,)
    assert array_pickles.load(b"\x80\3" + once + b".").shape == (1000,)
    with pytest.raises(ValueError, match="contents together are larger"):
        array_pickles.load(b"\x80\3(" + once + 9 * again + b"t.")


def test_episodes_that_share_their_numbers_do_not_fill_the_memory(tmp_path):
    one, *_ = episodes(rows=100)
    (tmp_path / "agent_0.npy").write_bytes(npy(pickle.dumps(array_of([one] * 50)), "(50,)"))
    with pytest.raises(ValueError, match="episodes together are larger"):
        Demonstrations.import_pymarl(tmp_path)


def refused(path: Path, match: str, **options) -> tuple[float, int]:
    """Seconds and peak memory in bytes that it takes to refuse a recording."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(ValueError, match=match) as caught:
            Demonstrations.import_pymarl(path.parent, **options)
        assert len(str(caught.value)) < 300 + len(str(path))
        return time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "piece",
    [b"}", b"]", b")", b"N", b"h\0", b"(", b"}\x94", b"h\0\x85", b"](h\0h\0h\0e", b"}(X\1\0\0\0ah\0u", b"]\x94"],
    ids=repr,
)
def test_one_byte_opcodes_cannot_fill_the_memory(tmp_path, piece):
    """Each makes an object of up to some hundred bytes; deflated, the file has a thousandth of the size that counts."""
    content = npy(b"\x80\4]q\0" + piece * (200_000 // len(piece)) + b".")
    (tmp_path / "agent_0.npz").write_bytes(npz(content))
    assert (tmp_path / "agent_0.npz").stat().st_size < 5_000
    _, peak = refused(
        tmp_path / "agent_0.npz", "more objects than a recording of its size has|damaged pickle .* objects at its"
    )
    assert peak < 60 * len(content)


def test_the_number_of_objects_is_limited_however_large_a_pickle_is():
    """40 kB of file may hold 40 MB of pickle."""
    assert pickle_machine.Budget(40_000_000).opcodes == 1_210_000
    assert pickle_machine.Budget(1_000).opcodes == 10_500


def test_a_recording_of_many_tiny_episodes_is_within_the_budget():
    """The fewest bytes for each opcode that real recordings have: one row more than a step, one feature, one agent."""
    for protocol in range(2, 6):
        items = [{name: x.clone() for name, x in episodes(1, rows=3, agents=1, width=1)[0].items()} for _ in range(300)]
        data = pickle.dumps(array_of(items), protocol)
        assert len(array_pickles.load(data).value) == 300
        arrays = pickle.dumps(array_of([{name: x.numpy() for name, x in item.items()} for item in items]), protocol)
        assert len(array_pickles.load(arrays).value) == 300


def test_the_same_storage_again_and_again_takes_no_time(tmp_path):
    """A storage is read by the same machine as the pickle around it, so its opcodes count."""
    one = pickle.dumps(torch.zeros(1), 4)
    storage = next(a for _, a, _ in pickletools.genops(one) if isinstance(a, bytes))
    call = b"ctorch.storage\n_load_from_bytes\n"
    content = npy(b"\x80\3]" + call + b"q\2" + sized(storage) + b"q\1\x85Ra" + 40_000 * b"h\2h\1\x85Ra" + b".")
    (tmp_path / "agent_0.npz").write_bytes(npz(content))
    _, peak = refused(tmp_path / "agent_0.npz", "more objects than|contents together are larger")
    assert peak < 60 * len(content)


def test_no_more_is_read_than_an_entry_claims(tmp_path):
    """What is too much is not even decompressed: 200 MB in an entry that says 400 bytes."""
    content = bytearray(npz(npy(pickle.dumps(array_of(episodes())) + bytes(200_000_000))))
    at = content.index(b"PK\1\2")
    content[at + 24 : at + 28] = struct.pack("<I", 400)
    (tmp_path / "agent_0.npz").write_bytes(content)
    _, peak = refused(tmp_path / "agent_0.npz", "agent_0.npz is not a usable recording", max_bytes=1000)
    assert peak < 5_000_000


def test_all_files_together_and_the_result_stay_within_max_bytes(tmp_path):
    folder = recorded().save(tmp_path, "npy")
    size = (folder / "agent_0.npy").stat().st_size
    with pytest.raises(
        ValueError, match=rf"agent_1.npy .* claim {size:,} bytes after {size:,} of the agents before it, over"
    ):
        Demonstrations.import_pymarl(folder, max_bytes=2 * size - 1)
    assert len(Demonstrations.import_pymarl(folder, max_bytes=2 * size)) == 4
    with pytest.raises(ValueError, match=r"observations of .* would take 112,000,\d+ bytes, over max_bytes"):
        Demonstrations.import_pymarl(folder, last_action=1_000_000, max_bytes=2 * size)


def test_a_recording_that_may_not_be_read(tmp_path):
    path = recorded().save(tmp_path) / "agent_1.npz"
    with (
        without_permission(path),
        pytest.raises(PermissionError, match=r"no permission to read .* .*agent_1\.npz"),
    ):
        Demonstrations.import_pymarl(tmp_path)


def test_the_last_action_is_the_one_of_the_step_before(tmp_path):
    """All actions of an episode differ here, so that one which is not shifted would show."""
    recorder = Recorder(1)
    recorder.add([[2], [3], [ATTACK], [4], [5]])
    recorder.add([[1], [2], [3]])
    demos = Demonstrations.import_pymarl(recorder.save(tmp_path), last_action=7)
    previous = demos.observations("agent_0")[:, WIDTH:]
    assert demos.actions[:, 0].tolist() == [2, 3, 6, 4, 1, 2]  # the observations after the last step are left out
    assert [row.argmax() if row.any() else None for row in previous] == [None, 2, 3, 6, None, 1]


def test_only_numpys_own_compression_is_read(tmp_path):
    """Others swell by thousands before what the archive claims is cut off."""
    content = npz(npy(pickle.dumps(array_of(episodes()))), method=zipfile.ZIP_BZIP2)
    (tmp_path / "agent_0.npz").write_bytes(content)
    with pytest.raises(ValueError, match="compressed in a way that NumPy does not use"):
        Demonstrations.import_pymarl(tmp_path)


def test_the_canary_sings(tmp_path):
    """The hostile recordings below are judged by a file: with plain pickle it does appear."""
    pickle.loads(dumps(Call("os", "mkdir", (str(tmp_path / "canary"),)), 4))
    assert (tmp_path / "canary").exists()


def test_hostile_recordings_are_refused_and_run_nothing(tmp_path):
    tally = read_all(int(os.environ.get("DM2_HOSTILE", "500")), int(os.environ.get("DM2_HOSTILE_SEED", "0")), tmp_path)
    assert {"hidden", "opcodes", "claims", "truncated", "scrambled", "headers", "flip", "zip"} <= tally.keys()
