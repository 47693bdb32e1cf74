"""A user's own wrapper around a vector environment loses nothing that the layers above need."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.testing import assert_array_equal

import dm2_wrappers as dm2
from dm2_wrappers.evaluation import evaluate
from tests.helpers import smac_double
from tests.helpers.tiny_envs import StateEnv


class Counting(dm2.MultiAgentVectorWrapper):
    """The five lines of a user."""

    def step(self, actions):
        self.steps = getattr(self, "steps", 0) + 1
        return self.env.step(actions)


def tiny():
    options = {"sizes": (4, 3), "actions": (3, 2), "start": 1, "masks": True, "wins": True, "random_limit": True}
    return dm2.vectorize(lambda: StateEnv(**options, lifetimes=(None, 3)), 2, state=True)


def smax():
    pytest.importorskip("jaxmarl", reason="the extra smax is not installed")
    return dm2.envs.smax.vector_env("3m", 3)


def smac():
    return dm2.envs.smac.vector_env("3m", 1, simulator=smac_double.StarCraft2Env, progress_bar=False, max_steps=12)


MAKERS = {"tiny": tiny, "smax": smax, "smac": smac}


def random_policy(seed=0):
    rng = np.random.default_rng(seed)
    return lambda observations, infos: np.where(infos["action_mask"], rng.random(infos["action_mask"].shape), -1).argmax(-1)


def equal(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            equal(one[name], other[name])
    elif isinstance(one, tuple):
        for pair in zip(one, other, strict=True):
            equal(*pair)
    else:
        assert_array_equal(one, other)


@pytest.mark.parametrize("backend", MAKERS)
def test_nothing_is_lost(backend):
    with MAKERS[backend]() as bare, Counting(Counting(MAKERS[backend]())) as wrapped:
        inner = wrapped.env.env
        assert type(inner) is type(bare)
        assert wrapped.unwrapped is inner.unwrapped is inner
        assert wrapped.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        for name in ("metadata", "render_mode", "num_envs", "possible_agents", "env_id", "observation_spaces"):
            assert getattr(wrapped, name) == getattr(bare, name), name
        for name in ("action_spaces", "observation_sizes", "discrete", "num_agents", "max_num_agents"):
            assert getattr(wrapped, name) == getattr(bare, name), name
        agent = bare.possible_agents[0]
        assert wrapped.observation_space(agent) == bare.observation_space(agent)
        assert wrapped.action_space(agent) == bare.action_space(agent)
        if backend == "tiny":
            assert wrapped.layout is inner.layout
        policy = random_policy()
        result = bare.reset(seed=3)
        equal(result, wrapped.reset(seed=3))
        for _ in range(15):
            actions = policy(result[0], result[-1])
            result = bare.step(actions)
            equal(result, wrapped.step(actions))
            assert {"present", "alive", "action_mask", "final_obs", "_final_obs", "final_alive", "broken"} <= set(result[-1])
            assert {"state", "final_state"} <= set(result[-1])
            ended = (result[2] | result[3]).all(axis=1)
            assert_array_equal(result[-1]["_final_obs"], ended)
        assert wrapped.steps == wrapped.env.steps == 15
        if backend == "tiny":
            assert_array_equal(wrapped.render(), bare.render())
    if backend != "smax":  # which has nothing to close
        with pytest.raises(RuntimeError, match="closed"):
            inner.reset()


@pytest.mark.parametrize("backend", MAKERS)
def test_recording_evaluation_and_the_dm2_wrapper_give_the_same_numbers(backend):
    with MAKERS[backend]() as bare, Counting(MAKERS[backend]()) as wrapped:
        one, other = (dm2.Demonstrations.record(venv, random_policy(), 4, seed=5) for venv in (bare, wrapped))
        assert one.metadata["env_id"] == other.metadata["env_id"] == bare.env_id
        assert one.win_rate == other.win_rate
        assert one.mean_return == other.mean_return
        for agent in one.agents:
            assert_array_equal(one.observations(agent), other.observations(agent))
        equal(evaluate(random_policy(), bare, 4, seed=6), evaluate(random_policy(), wrapped, 4, seed=6))
        shaped = [
            dm2.DM2VectorEnv(venv, dm2.DistributionMatcher(one, updates=1, batch_size=8, seed=0), coefficient=0.3)
            for venv in (bare, wrapped)
        ]
        outer = Counting(shaped[1])
        assert outer.matcher is shaped[1].matcher
        result, policy = shaped[0].reset(seed=7), random_policy()
        equal(result, outer.reset(seed=7))
        for _ in range(8):
            actions = policy(result[0], result[-1])
            result = shaped[0].step(actions)
            equal(result, outer.step(actions))
            assert {"env_reward", "gail_reward"} <= set(result[-1])
        assert shaped[0].update() == shaped[1].update()


@pytest.mark.parametrize("backend", ["tiny", "smax"])
@pytest.mark.parametrize("mode", ["exact", "online"])
def test_independent_learners_learn_the_same(backend, mode):
    contrib = pytest.importorskip("sb3_contrib")
    weights = []
    for wrap in (lambda venv: venv, Counting):
        with MAKERS[backend]() as venv:
            demos = dm2.Demonstrations.record(venv, random_policy(), 4, seed=5)
            matcher = dm2.DistributionMatcher(demos, updates=1, batch_size=8, seed=0)
            options = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "device": "cpu", "seed": 0, "mode": mode}
            team = dm2.sb3.IndependentLearners(contrib.MaskablePPO, wrap(venv), matcher=matcher, coefficient=0.3, **options)
            team.learn(16)
            model = team.models[venv.possible_agents[-1]]
            weights.append([weight.detach().numpy().copy() for weight in model.policy.parameters()])
    for one, other in zip(*weights, strict=True):
        assert_array_equal(one, other)


def test_independent_learners_refuse_a_wrapper_around_the_dm2_wrapper():
    contrib = pytest.importorskip("sb3_contrib")
    venv = tiny()
    demos = dm2.Demonstrations.record(venv, random_policy(), 2, seed=5)
    outer = Counting(dm2.DM2VectorEnv(venv, demos, coefficient=0.3))
    with pytest.raises(ValueError, match="put DM2VectorEnv or DM2ParallelEnv around all other wrappers"):
        dm2.sb3.IndependentLearners(contrib.MaskablePPO, outer)
    for use in (lambda: evaluate(random_policy(), outer, 1), lambda: dm2.Demonstrations.record(outer, random_policy(), 1)):
        with pytest.raises(ValueError, match="these episodes would train the discriminators"):
            use()
    with pytest.raises(ValueError, match="already has a DM2 wrapper"):
        dm2.DM2VectorEnv(outer, demos, coefficient=0.3)


class FirstTwo(dm2.MultiAgentVectorWrapper):
    """Each agent sees only its first two features."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_spaces = {
            agent: spaces.Box(space.low[:2], space.high[:2]) for agent, space in env.observation_spaces.items()
        }

    def reset(self, *, seed=None, options=None):
        observations, infos = self.env.reset(seed=seed, options=options)
        return observations[..., :2], infos

    def step(self, actions):
        observations, *rest, infos = self.env.step(actions)
        return observations[..., :2], *rest, {**infos, "final_obs": infos["final_obs"][..., :2]}


def test_a_subclass_may_replace_the_observation_spaces():
    venv = FirstTwo(tiny())
    assert venv.observation_sizes == (2, 2)
    assert venv.observation_space("agent_0").shape == (2,)
    assert venv.unwrapped.observation_sizes == (4, 3)
    demos = dm2.Demonstrations.record(venv, random_policy(), 2, seed=5)
    assert demos.sizes == (2, 2)
    whole = dm2.Demonstrations.record(tiny(), random_policy(), 2, seed=5)
    assert_array_equal(demos.observations("agent_0"), whole.observations("agent_0")[:, :2])
    shaped = dm2.DM2VectorEnv(venv, demos, coefficient=0.3)
    observations, infos = shaped.reset(seed=0)
    assert observations.shape == (2, 2, 2)
    shaped.step(random_policy()(observations, infos))
    with pytest.raises(ValueError, match="features"):
        dm2.DM2VectorEnv(tiny(), demos, coefficient=0.3)


def test_what_a_wrapper_does_not_have():
    with pytest.raises(TypeError, match=r"Counting wraps a MultiAgentVectorEnv, for example vectorize\(.*got StateEnv"):
        Counting(StateEnv())
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = Counting(tiny()).no_such_thing
    with pytest.raises(AttributeError, match="_private"):
        _ = Counting(tiny())._private
