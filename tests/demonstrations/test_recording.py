"""Recording: what is kept of the episodes that a policy plays."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import dm2_wrappers as dm2
from dm2_wrappers import Demonstrations
from tests.helpers.tiny_envs import TinyEnv, ToldEnv


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


@pytest.mark.parametrize("n", [None, 1, 2])
def test_outcomes_that_are_not_reported_are_recorded_as_such(n, tmp_path):
    env = ToldEnv(limit=1) if n is None else dm2.vectorize(lambda: ToldEnv(limit=1), n)
    demos = Demonstrations.record(env, Clock(), 8, seed=0)
    assert sorted(demos.won[0].tolist()) == [-1] * 4 + [0, 0, 1, 1]
    np.testing.assert_array_equal(demos.won[1], demos.won[0])
    assert demos.win_rate == 0.5
    assert len(demos.filter(won=True)) == len(demos.filter(won=False)) == 2
    demos.save(tmp_path / "demos.npz")
    assert Demonstrations.load(tmp_path / "demos.npz").win_rate == 0.5


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
    with pytest.raises(ValueError, match="provenance must be a dict of notes about the policy, got 'mine'"):
        Demonstrations.record(env, Clock(), 1, provenance="mine")
    assert env.episode == -1


def test_progress_bar(capsys):
    Demonstrations.record(TinyEnv(), Clock(), 2, progress_bar=True)
    assert "2/2" in capsys.readouterr().err


def test_each_sub_environment_records_the_same_number_of_episodes():
    """Here each sub-environment has another episode length, so taking the first to finish would show."""
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
    # The batched recording's episodes are in random order: sub-environments finish their short ones first.
    order = np.random.default_rng(3).permutation(5)
    assert order.tolist() != [0, 1, 2, 3, 4]
    for k in range(3):
        for i, episode in enumerate(order):
            rows = [slice(*demos.offsets[k, e : e + 2]) for demos, e in ((batched, i), (alone, episode))]
            for name in ("padded_observations", "alive", "rewards"):
                assert np.array_equal(getattr(batched, name)[rows[0], k], getattr(alone, name)[rows[1], k]), name


def test_broken_episodes_of_sub_environments_are_replaced():
    venv = dm2.vectorize(lambda: TinyEnv(limit=2, broken=(1,)), 2)
    demos = Demonstrations.record(venv, Clock(), 6, seed=0)
    assert len(demos) == 6
    assert [env.episode for env in venv.envs] == [4, 4]  # three kept, one broken, and the next one begun


@pytest.mark.parametrize("batched", [False, True])
def test_negative_seeds_record_too(batched):
    class TakesAnySeed(TinyEnv):
        def reset(self, seed=None, options=None):
            return super().reset(None if seed is None else seed % 2**32, options)

    env = dm2.vectorize(lambda: TakesAnySeed(limit=4), 2) if batched else TakesAnySeed(limit=4)
    first, second = (Demonstrations.record(env, Clock(), 4, seed=-1) for _ in range(2))
    np.testing.assert_array_equal(first.padded_observations, second.padded_observations)
    assert first.metadata["seed"] == -1


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


def test_shaping_never_gets_into_a_vector_recording():
    class Shaped(dm2.MultiAgentVectorWrapper):
        def step(self, actions):
            observations, rewards, terminations, truncations, infos = self.env.step(actions)
            return observations, rewards - 99, terminations, truncations, {**infos, "env_reward": rewards}

    env = lambda: dm2.vectorize(lambda: TinyEnv(limit=5), 2)  # noqa: E731
    shaped, plain = (Demonstrations.record(each, Clock(), 4, seed=0) for each in (Shaped(env()), env()))
    assert plain.mean_return == pytest.approx(5 * 2)  # both agents' 1s in each of five steps
    np.testing.assert_array_equal(shaped.rewards, plain.rewards)


def test_agents_that_are_not_named_by_strings_are_refused_before_playing():
    env = TinyEnv()
    env.possible_agents = [0, 1]
    env.sizes, env.numbers, env.lifetimes = (
        {k: d[f"agent_{k}"] for k in (0, 1)} for d in (env.sizes, env.numbers, env.lifetimes)
    )
    with pytest.raises(ValueError, match="string"):
        Demonstrations.record(env, Clock(), 1)
    assert env.episode == -1
