"""Mistakes in wrapping, each refused in one sentence."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import TinyEnv
from tests.helpers.wrapped import (
    OPTIONS,
    demonstrations,
    matcher,
    zeros,
)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "much"])
def test_coefficients_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="coefficient must be a finite number of at least 0"):
        dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=value)


def test_misfits_are_refused():
    demos = demonstrations()
    with pytest.raises(ValueError, match="features"):
        dm2.DM2ParallelEnv(TinyEnv(sizes=(4, 9)), demos, coefficient=0.3)
    with pytest.raises(ValueError, match="agents"):
        dm2.DM2ParallelEnv(TinyEnv(sizes=(4, 3, 3)), demos, coefficient=0.3)
    with pytest.raises(ValueError, match="agents"):
        dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(sizes=(4,)), 2), demos, coefficient=0.3)
    with pytest.raises(TypeError, match=r"Demonstrations\.load"):
        dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), "demos.npz", coefficient=0.3)
    with pytest.raises(ValueError, match="update_every"):
        dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), demos, coefficient=0.3, update_every=0)


def test_another_scenario_is_refused():
    env = TinyEnv(**OPTIONS)
    env.metadata = {"name": "other"}
    with pytest.raises(ValueError, match="recorded on 'tiny'"):
        dm2.DM2ParallelEnv(env, demonstrations(), coefficient=0.3)


@pytest.mark.parametrize(("sick", "message"), [("reward", "reward nan for agent"), ("observation", "agent_1")])
def test_nan_in_an_observation_or_reward_is_one_sentence(sick, message):
    class Sick(TinyEnv):
        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            if sick == "reward":
                rewards = dict.fromkeys(rewards, float("nan"))
            else:
                observations["agent_1"][2] = np.nan
            return observations, rewards, *rest

    def two_steps():
        for _ in range(2):
            env.step(zeros(env))

    env = dm2.DM2ParallelEnv(Sick(**OPTIONS), matcher(), coefficient=0.3)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        two_steps()


def test_copies_are_refused_and_told_what_to_do():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.3)
    for duplicate in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="share the one matcher"):
            duplicate(env)


def test_supersuits_vectoriser_is_told_what_to_do():
    supersuit = pytest.importorskip("supersuit")
    demos = demonstrations(sizes=(4, 4))
    env = dm2.DM2ParallelEnv(TinyEnv(sizes=(4, 4), limit=5), matcher(demos), coefficient=0.3)
    venv = supersuit.pettingzoo_env_to_vec_env_v1(env)  # where most of its users begin
    with pytest.raises(TypeError, match="DM2VectorEnv"):
        supersuit.concat_vec_envs_v1(venv, 2, base_class="gymnasium")


def test_vectorize_refuses_a_wrapped_environment():
    with pytest.raises((TypeError, ValueError), match="DM2VectorEnv"):
        dm2.vectorize(lambda: dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.3), 2)


def test_wrapping_twice_is_refused():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.3)
    venv = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 1), matcher(), coefficient=0.3)
    for again in (
        lambda: dm2.DM2ParallelEnv(env, matcher(), coefficient=0.3),
        lambda: type(venv)(venv, matcher(), coefficient=1),
    ):
        with pytest.raises(ValueError, match=r"already has a DM2 wrapper: r_gail would be paid twice; wrap .* once"):
            again()


def test_another_matcher_needs_another_wrapper():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.3)
    with pytest.raises(AttributeError, match="matcher cannot be changed once DM2ParallelEnv is made"):
        env.matcher = matcher()


def test_an_attribute_called_matcher_is_not_a_dm2_wrapper():
    env = TinyEnv(**OPTIONS)
    env.matcher = "a regular expression"
    dm2.DM2ParallelEnv(env, matcher(), coefficient=0.3)


@pytest.mark.parametrize("path", ["demos.npz", Path("demos.npz")])
def test_a_path_where_demonstrations_are_wanted(path):
    venv = dm2.vectorize(lambda: TinyEnv(**OPTIONS), 1)
    for wrap in (
        lambda: dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), path, coefficient=0.3),
        lambda: dm2.DM2VectorEnv(venv, path, coefficient=0.3),
    ):
        with pytest.raises(
            TypeError, match=r"expected Demonstrations or a DistributionMatcher, got .*Demonstrations\.load\(path\)"
        ):
            wrap()


def test_a_reward_that_is_not_finite_names_agent_and_sub_environment():
    class Sick(dm2.MultiAgentVectorWrapper):
        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            rewards = rewards.copy()
            rewards[1, 0], rewards[2, 1] = np.nan, np.inf
            return observations, rewards, *rest

    env = dm2.DM2VectorEnv(Sick(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 3)), matcher(), coefficient=1.0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"agent 'agent_0' in sub-environment 1 got nan"):
        env.step(np.zeros((3, 2), np.int64))


def test_flags_of_a_vector_environment_must_be_true_or_false():
    inner = dm2.vectorize(lambda: TinyEnv(**OPTIONS), 2)
    reset = inner.reset

    def with_counts(**options):
        observations, infos = reset(**options)
        return observations, {**infos, "alive": infos["alive"] * 2}

    inner.reset = with_counts
    with pytest.raises(ValueError, match=r"^alive in infos must hold True or False"):
        dm2.DM2VectorEnv(inner, matcher(), coefficient=0.3).reset(seed=0)


@pytest.mark.parametrize("value", [-0.1, float("nan"), "much"])
def test_environment_coefficients_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="env_coefficient must be a finite number of at least 0"):
        dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.3, env_coefficient=value)
