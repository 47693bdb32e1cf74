from __future__ import annotations

import json
import pickle
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import dm2_wrappers as dm2
from dm2_wrappers.demonstrations import Demonstrations
from tests.helpers.tiny_envs import TinyEnv


def make(lengths=(2, 3, 4), sizes=(3, 2), won=(1, 0, 1), env_id="tiny", seed=0) -> Demonstrations:
    """Demonstrations whose feature 0 is ``100 * agent + episode``; agent 1 is dead in each episode's last step."""
    rng, k, s = np.random.default_rng(seed), len(sizes), sum(lengths)
    observations = rng.random((s, k, max(sizes)), dtype=np.float32)
    observations[:, :, 0] = np.repeat(np.arange(len(lengths)), lengths)[:, None] + 100 * np.arange(k)
    alive = np.ones((s, k), bool)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if k > 1:
        alive[offsets[1:] - 1, 1] = False
    for agent, size in enumerate(sizes):
        observations[:, agent, size:] = 0
    observations *= alive[..., None]
    return Demonstrations(
        agents=tuple(f"agent_{agent}" for agent in range(k)),
        sizes=tuple(sizes),
        padded_observations=observations,
        alive=alive,
        actions=rng.integers(0, 3, (s, k)),
        rewards=np.ones((s, k), np.float32),
        offsets=np.tile(offsets, (k, 1)),
        won=np.tile(np.array(won, np.int8), (k, 1)),
        metadata={"env_id": env_id, "style": "concurrent", "policy": {"algorithm": "IPPO"}, "seed": seed},
    )


def rows(array: np.ndarray) -> list[tuple[float, ...]]:
    return sorted(map(tuple, array.tolist()))


# --- the numbers ------------------------------------------------------------------------------------------------------


def test_summary_numbers():
    demos = make()
    assert len(demos) == 3
    assert demos.agents == ("agent_0", "agent_1")
    assert demos.sizes == (3, 2)
    assert demos.env_id == "tiny"
    assert demos.win_rate == pytest.approx(2 / 3)
    assert demos.mean_return == pytest.approx(3.0)
    assert demos.mean_length == pytest.approx(3.0)
    assert make(won=(-1, -1, -1)).win_rate is None


def test_observations_are_live_steps_unpadded():
    demos = make()
    assert demos.observations("agent_0").shape == (9, 3)
    assert demos.observations("agent_1").shape == (6, 2)
    assert demos.observations("agent_0").dtype == np.float32
    assert demos.observations("agent_1")[:, 0].tolist() == [100, 101, 101, 102, 102, 102]
    with pytest.raises(ValueError, match="no agent 'marine'"):
        demos.observations("marine")


def test_subset_takes_the_first_episodes():
    two = make().subset(2)
    assert len(two) == 2
    assert two.observations("agent_0")[:, 0].tolist() == [0, 0, 1, 1, 1]
    assert two.win_rate == 0.5
    assert len(make().subset(3)) == 3
    for n in (0, 4, -1):
        with pytest.raises(ValueError, match="1 to 3"):
            make().subset(n)


# --- the styles of the ablation (section 6.2) -------------------------------------------------------------------------


def test_shuffled_keeps_each_agents_data_but_not_who_met_whom():
    demos = make(lengths=range(1, 31), won=[1, 0] * 15)
    shuffled = demos.shuffled(seed=1)
    for agent in demos.agents:
        assert rows(shuffled.observations(agent)) == rows(demos.observations(agent))
    order = [shuffled.padded_observations[shuffled.offsets[k, :-1], k, 0] % 100 for k in range(2)]
    assert not np.array_equal(*order)
    assert shuffled.style == "shuffled"
    assert shuffled.win_rate == demos.win_rate
    assert shuffled.mean_return == pytest.approx(demos.mean_return)
    assert np.array_equal(shuffled.offsets, demos.shuffled(seed=1).offsets)
    assert not np.array_equal(shuffled.offsets, demos.shuffled(seed=2).offsets)


def test_episodes_stay_whole_when_shuffled():
    shuffled = make(lengths=range(1, 11), won=[1] * 10).shuffled(seed=0).subset(4)
    for k in range(2):
        for start, end in zip(shuffled.offsets[k, :-1], shuffled.offsets[k, 1:], strict=True):
            episode = shuffled.padded_observations[start:end, k, 0][shuffled.alive[start:end, k]]
            assert len(set(episode.tolist())) <= 1
            assert all(value % 100 == end - start - 1 for value in episode)


def test_mix_takes_each_agent_from_its_own_team():
    one, other = make(seed=1), make(lengths=(5, 1), won=(0, 0), seed=2)
    mixed = Demonstrations.mix({"agent_1": other, "agent_0": one})
    assert mixed.agents == ("agent_1", "agent_0")  # the dict's order
    assert mixed.sizes == (2, 3)
    assert len(mixed) == 2  # the shortest
    assert mixed.win_rate is None
    assert mixed.style == "mixed"
    assert np.array_equal(mixed.observations("agent_0"), one.subset(2).observations("agent_0"))
    assert np.array_equal(mixed.observations("agent_1"), other.observations("agent_1"))
    assert mixed.mean_length == pytest.approx((5 + 6) / 4)
    assert mixed.shuffled(0).win_rate is None


def test_mix_errors():
    with pytest.raises(ValueError, match="empty"):
        Demonstrations.mix({})
    with pytest.raises(ValueError, match="no agent 'agent_7'"):
        Demonstrations.mix({"agent_7": make()})
    with pytest.raises(ValueError, match="one scenario"):
        Demonstrations.mix({"agent_0": make(), "agent_1": make(env_id="other")})


def test_mix_pads_to_the_widest_chosen_agent():
    mixed = Demonstrations.mix({"agent_1": make(sizes=(9, 2)), "agent_0": make(sizes=(4, 9))})
    assert mixed.padded_observations.shape[2] == 4
    assert mixed.observations("agent_1").shape[1] == 2


# --- files ------------------------------------------------------------------------------------------------------------


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


# --- recording --------------------------------------------------------------------------------------------------------


class Clock:
    """Plays action 1 always; notes where episodes begin."""

    def __init__(self):
        self.starts = []

    def __call__(self, observations, infos=None):
        if infos is None:
            return dict.fromkeys(observations, 1)
        return np.ones(observations.shape[:2], np.int64)

    def start_episode(self, mask):
        self.starts.append(mask.tolist())


def test_record_a_parallel_env():
    policy = Clock()
    demos = Demonstrations.record(TinyEnv(limit=4, wins=True, masks=True), policy, 3, seed=7, provenance={"by": "clock"})
    assert len(demos) == 3
    assert demos.env_id == "tiny"
    assert demos.win_rate == pytest.approx(2 / 3)
    assert demos.mean_return == pytest.approx((3 * 4 * 2 + 2 * 10) / 3)  # both agents' 1s, and 10 for a win
    assert demos.mean_length == 4
    # Feature 0 counts the steps: observations come before the action, and the last one of an episode is left out.
    assert demos.observations("agent_1").tolist() == [[0, 0], [1, 1], [2, 1], [3, 1]] * 3
    assert demos.observations("agent_0").shape == (12, 3)
    assert (demos.actions == 1).all()
    assert policy.starts == [[True]] * 3
    assert demos.metadata["policy"] == {"by": "clock"}
    assert demos.metadata["seed"] == 7


@pytest.mark.parametrize("absorb", [False, True])
def test_the_dead_are_not_recorded(absorb):
    env = TinyEnv(limit=4, lifetimes=(None, 2), absorb=absorb)
    demos = Demonstrations.record(env, Clock(), 2)
    assert demos.alive[:, 1].tolist() == [True, True, False, False] * 2
    assert not demos.padded_observations[~demos.alive].any()
    assert len(demos.observations("agent_1")) == 4
    assert demos.win_rate is None
    assert demos.mean_return == pytest.approx(2 + 2 + 1 + 1)


def test_broken_episodes_are_replaced():
    env = TinyEnv(limit=3, broken=(0, 2), wins=True)
    demos = Demonstrations.record(env, Clock(), 3)
    assert len(demos) == 3
    assert env.episode == 5  # 0 to 4 were played; the environment has begun the next one
    with pytest.raises(RuntimeError, match="keeps failing"):
        Demonstrations.record(TinyEnv(limit=1, broken=range(100)), Clock(), 2)


def test_shaping_never_gets_in():
    class Shaped(TinyEnv):
        def step(self, actions):
            *result, infos = super().step(actions)
            rewards = dict.fromkeys(result[1], -99.0)
            for agent, info in infos.items():
                info["env_reward"] = 2.0 if agent == "agent_0" else 4.0
            return result[0], rewards, result[2], result[3], infos

    assert Demonstrations.record(Shaped(limit=5), Clock(), 2).mean_return == pytest.approx(15.0)


def test_continuous_actions_and_offset_discrete_ones(tmp_path):
    env = TinyEnv(continuous=True, actions=(1, 2))
    policy = lambda seen: {agent: np.full(env.numbers[agent], 0.5, np.float32) for agent in seen}  # noqa: E731
    demos = Demonstrations.record(env, policy, 1)
    assert demos.actions.shape == (5, 2, 2)
    assert demos.actions[0].tolist() == [[0.5, 0], [0.5, 0.5]]
    demos.save(tmp_path / "demos.npz")
    assert np.array_equal(Demonstrations.load(tmp_path / "demos.npz").shuffled(0).actions, demos.actions)
    env = TinyEnv(start=4)
    assert (Demonstrations.record(env, lambda seen: dict.fromkeys(seen, 6), 1).actions == 2).all()


@pytest.mark.parametrize(
    ("options", "action", "message"),
    [
        ({"start": 1}, 0, r"agent 'agent_0' the action 0, but its action space is Discrete\(3, start=1\)"),
        ({}, 1.0, "the action 1.0"),
        ({"continuous": True}, np.zeros(2), "the action \\[|the action array"),
        ({"continuous": True}, np.full(3, 1.5), "the action \\[|the action array"),
        ({"continuous": True}, np.full(3, np.nan), "the action \\[|the action array"),
    ],
)
def test_an_action_outside_the_native_space_is_refused(options, action, message):
    with pytest.raises(ValueError, match=message):
        Demonstrations.record(TinyEnv(**options), lambda seen: dict.fromkeys(seen, action), 1)
    with pytest.raises(ValueError, match="no action for agent 'agent_1'"):
        Demonstrations.record(TinyEnv(), lambda seen: {"agent_0": 1}, 1)


def test_recorded_actions_may_come_in_any_precision():
    half = lambda seen: dict.fromkeys(seen, np.full(3, 0.5, np.float64))  # noqa: E731
    assert (Demonstrations.record(TinyEnv(continuous=True), half, 1).actions == 0.5).all()
    first = lambda seen: dict.fromkeys(seen, np.int64(3))  # noqa: E731
    assert (Demonstrations.record(TinyEnv(start=3), first, 1).actions == 0).all()


def test_a_missing_progress_bar_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"package 'tqdm', which is not installed: run pip install"):
        Demonstrations.record(TinyEnv(), Clock(), 1, progress_bar=True)


def test_bad_arguments_fail_before_playing():
    env = TinyEnv()
    with pytest.raises(ValueError, match="episodes must be an integer of at least 1"):
        Demonstrations.record(env, Clock(), 0)
    with pytest.raises(ValueError, match="JSON"):
        Demonstrations.record(env, Clock(), 1, provenance={"model": object()})
    assert env.episode == -1


def test_progress_bar(capsys):
    Demonstrations.record(TinyEnv(), Clock(), 2, progress_bar=True)
    assert "2/2" in capsys.readouterr().err


def test_record_over_copies_takes_the_same_number_from_each():
    """Episode length depends on the copy here, so taking the first to finish would show."""
    lengths = iter([1, 7, 2])
    venv = dm2.vectorize(lambda: TinyEnv(limit=next(lengths), wins=True), 3)
    policy = Clock()
    demos = Demonstrations.record(venv, policy, 7, seed=0)
    assert sorted(np.diff(demos.offsets[0]).tolist()) == [1, 1, 1, 2, 2, 7, 7]
    assert demos.won.mean() == pytest.approx((2 + 1 + 1) / 7)
    assert policy.starts[0] == [True, True, True]
    assert policy.starts[1] == [True, False, False]


def test_a_vector_env_records_what_a_parallel_env_does():
    options = {"sizes": (4, 2, 3), "limit": 6, "random_limit": True, "lifetimes": (None, 2, 3), "masks": True}
    alone = Demonstrations.record(TinyEnv(**options), Clock(), 5, seed=3)
    batched = Demonstrations.record(dm2.vectorize(lambda: TinyEnv(**options), 1), Clock(), 5, seed=3)
    assert alone.sizes == batched.sizes == (4, 2, 3)
    # The batched recording's episodes are in random order: copies finish their short ones first.
    order = np.random.default_rng(3).permutation(5)
    assert order.tolist() != [0, 1, 2, 3, 4]
    for k in range(3):
        for i, episode in enumerate(order):
            rows = [slice(*demos.offsets[k, e : e + 2]) for demos, e in ((batched, i), (alone, episode))]
            for name in ("padded_observations", "alive", "rewards"):
                assert np.array_equal(getattr(batched, name)[rows[0], k], getattr(alone, name)[rows[1], k]), name


def test_broken_copies_are_replaced():
    venv = dm2.vectorize(lambda: TinyEnv(limit=2, broken=(1,)), 2)
    demos = Demonstrations.record(venv, Clock(), 6, seed=0)
    assert len(demos) == 6
    assert [env.episode for env in venv.envs] == [4, 4]  # three kept, one broken, and the next one begun


# --- compatibility ----------------------------------------------------------------------------------------------------


def test_check_compatible():
    demos = make()
    demos.check_compatible(("agent_0", "agent_1"), (3, 2))
    demos.check_compatible(["agent_0", "agent_1"], [3, 2], "tiny")
    make(env_id=None).check_compatible(demos.agents, demos.sizes, "other")
    with pytest.raises(ValueError, match=r"'smax:3m', but .* 'tiny'"):
        demos.check_compatible(demos.agents, demos.sizes, "smax:3m")
    with pytest.raises(ValueError, match=r"\['agent_0'\], the demonstrations' \['agent_0', 'agent_1'\]"):
        demos.check_compatible(["agent_0"], [3])
    with pytest.raises(ValueError, match="order"):
        demos.check_compatible(["agent_1", "agent_0"], [2, 3])
    with pytest.raises(ValueError, match=r"'agent_1' has 5 observation features .* 2 in the demonstrations"):
        demos.check_compatible(demos.agents, (3, 5))


@pytest.mark.parametrize("batched", [False, True])
def test_one_seed_records_the_same_episodes_and_leaves_the_global_streams_alone(batched):
    env = dm2.vectorize(lambda: TinyEnv(), 2) if batched else TinyEnv()

    def policy(observations, infos=None):
        if batched:
            return np.random.randint(0, 3, observations.shape[:2])
        return {agent: int(np.random.randint(3)) for agent in observations}

    np.random.seed(1)
    first = Demonstrations.record(env, policy, 6, seed=0)
    after = np.random.randint(10**9)
    second, other = (Demonstrations.record(env, policy, 6, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.actions, second.actions)
    assert not np.array_equal(first.actions, other.actions)
    np.random.seed(1)
    assert after == np.random.randint(10**9)
