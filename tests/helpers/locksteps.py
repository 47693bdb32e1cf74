"""A lockstep on copies of a tiny environment, and one loop for each of its agents."""

import dm2_wrappers as dm2
from dm2_wrappers.lockstep import AgentVectorEnv, Lockstep
from tests.helpers.tiny_envs import TinyEnv


def make(n=2, seed=0, **options):
    venv = dm2.vectorize(lambda: TinyEnv(**options), n)
    return venv, Lockstep(venv, seed=seed)


def loops_of(lockstep, body):
    """One loop per agent: ``body(env, agent)``."""
    return {
        agent: (lambda agent=agent: body(AgentVectorEnv(lockstep, agent), agent)) for agent in lockstep.env.possible_agents
    }
