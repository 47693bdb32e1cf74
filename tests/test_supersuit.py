"""SuperSuit's wrappers inside and outside of ours: they compose, or one sentence says why not."""

from __future__ import annotations

import numpy as np
import pytest

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import TinyEnv

supersuit = pytest.importorskip("supersuit")

WRAPPERS = {
    "frame_stack": lambda env: supersuit.frame_stack_v1(env, 2),
    "dtype": lambda env: supersuit.dtype_v0(env, np.float64),
    "flatten": supersuit.flatten_v0,
    "normalize_obs": lambda env: supersuit.normalize_obs_v0(env, env_min=0, env_max=1),
    "agent_indicator": supersuit.agent_indicator_v0,
    "clip_reward": lambda env: supersuit.clip_reward_v0(env, -0.5, 0.5),
}


def tiny(**options):
    return TinyEnv(sizes=(3, 3), limit=6, **options)


def demos_of(env):
    return dm2.Demonstrations.record(env, lambda seen: dict.fromkeys(seen, 0), 3, seed=0)


def step(env):
    env.reset(seed=0)
    return env.step(dict.fromkeys(env.agents, 1))


@pytest.mark.parametrize("name", WRAPPERS)
def test_inside_the_experts_and_the_discriminators_see_what_the_wrapper_makes(name):
    def make():
        return WRAPPERS[name](tiny())

    env = dm2.DM2ParallelEnv(make(), demos_of(make()), coefficient=2.0)
    _, rewards, _, _, infos = step(env)
    size = env.observation_space("agent_0").shape[0]
    assert env.matcher.sizes == (size, size)
    assert infos["agent_0"]["env_reward"] == (0.5 if name == "clip_reward" else 2.0)
    for agent, info in infos.items():
        assert rewards[agent] == pytest.approx(info["env_reward"] + 2.0 * info["gail_reward"], rel=1e-6)
    rows = dm2.sb3.SharedPolicyVecEnv(dm2.vectorize(make, 2))
    assert rows.reset().shape == (4, size + 2)


@pytest.mark.parametrize("name", WRAPPERS)
def test_outside_the_discriminators_see_the_environments_own_observations(name):
    env = WRAPPERS[name](dm2.DM2ParallelEnv(tiny(), demos_of(tiny()), coefficient=2.0))
    _, rewards, _, _, infos = step(env)
    for agent, info in infos.items():
        mixed = info["env_reward"] + 2.0 * info["gail_reward"]
        # clip_reward clips the mixed reward: r_gail is cut off, too.
        assert rewards[agent] == pytest.approx(np.clip(mixed, -0.5, 0.5) if name == "clip_reward" else mixed, rel=1e-6)


def test_black_death_goes_around_the_dm2_wrapper():
    def leaving():
        return tiny(lifetimes=(None, 2))

    demos = demos_of(leaving())
    with pytest.raises(ValueError, match="black_death hides which agents are gone"):
        dm2.DM2ParallelEnv(supersuit.black_death_v3(leaving()), demos, coefficient=1.0)
    with pytest.raises(ValueError, match="black_death hides which agents are gone"):
        dm2.vectorize(lambda: supersuit.black_death_v3(leaving()), 2)
    inner = dm2.DM2ParallelEnv(leaving(), demos, coefficient=1.0)
    env = supersuit.black_death_v3(inner)
    env.reset(seed=0)
    for _ in range(4):
        observations, *_ = env.step({"agent_0": 1, "agent_1": 1})
    assert not observations["agent_1"].any()
    inner.flush()
    assert inner.matcher.update()["transitions"] == 4 + 2  # the zeros of the agent that is gone are not recorded


def test_the_step_that_black_death_makes_after_the_end_counts_as_none():
    def played(wrap):
        gap = dm2.schedules.ReturnGap(1.0, first=0.0, target=100.0)
        inner = dm2.DM2ParallelEnv(tiny(), demos_of(tiny()), coefficient=gap)
        env = wrap(inner)
        for seed in range(3):
            env.reset(seed=seed)
            while env.agents:
                env.step(dict.fromkeys(env.agents, 1))
        steps = inner.steps_since_update
        inner.update()
        return gap.state_dict()["newest"], steps

    assert played(lambda env: env) == played(supersuit.black_death_v3) == ([12.0] * 3, 18)


def test_supersuits_rows_of_agents_are_refused_with_what_takes_their_place():
    vector = supersuit.pettingzoo_env_to_vec_env_v1(tiny())
    with pytest.raises(TypeError, match=r"MultiAgentVectorEnv|ParallelEnv"):
        dm2.sb3.SharedPolicyVecEnv(vector)
