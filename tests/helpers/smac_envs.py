"""SMAC's environment on a double of ``StarCraft2Env``, and playing in it without fighting."""

from __future__ import annotations

from dm2_wrappers.envs import smac
from tests.helpers.smac_double import StarCraft2Env

NO_OP, STOP, EAST = 0, 1, 4


def double(**attributes):
    """The double's class with other class attributes."""
    return type("StarCraft2Env", (StarCraft2Env,), attributes)


def make(map_name="3m", attributes=None, **options):
    return smac.parallel_env(map_name, simulator=double(**(attributes or {})), **options)


def stop_all(env):
    alive = dict(zip(env.possible_agents, env._alive, strict=True))
    return {agent: STOP if alive[agent] else NO_OP for agent in env.agents}


def play(env, steps):
    """Do nothing for so many steps; what the last one gave."""
    for _ in range(steps):
        result = env.step(stop_all(env))
    return result
