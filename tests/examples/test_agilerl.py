"""AgileRL's own vector environment, which forks: `make check-agilerl`."""

from __future__ import annotations

import pytest

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import TinyEnv


def test_the_forked_environments_of_agilerl_are_refused_in_one_sentence():
    pytest.importorskip("agilerl")
    from agilerl.vector import AsyncPettingZooVecEnv

    demos = dm2.Demonstrations.record(TinyEnv(), lambda seen: dict.fromkeys(seen, 0), 8, seed=0)
    matcher = dm2.DistributionMatcher(demos, updates=2, batch_size=8, hidden=(8, 8), seed=0)
    make_env = lambda: dm2.DM2ParallelEnv(TinyEnv(), matcher, coefficient=1.0)  # noqa: E731
    vector_env = AsyncPettingZooVecEnv([make_env, make_env], context="fork")
    try:
        vector_env.reset(seed=0)
        actions = {agent: vector_env.action_space(agent).sample() for agent in vector_env.possible_agents}
        with pytest.raises(RuntimeError, match=r"made in process \d+ but is used in process \d+, where training would not"):
            vector_env.step(actions)
    finally:
        vector_env.close(terminate=True)
