"""Evaluation of any joint policy: win rate, return and length with standard errors, from the environment's own rewards."""

from __future__ import annotations

from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from dm2_wrappers import _checks
from dm2_wrappers.episodes import JointPolicy, play
from dm2_wrappers.rng_state import GlobalRNGState, derive_seed
from dm2_wrappers.unwrap import layers, without_matcher
from dm2_wrappers.vector import MultiAgentVectorEnv, as_vector_env


def evaluate(
    policy: JointPolicy, env: ParallelEnv | MultiAgentVectorEnv, episodes: int = 32, seed: int | None = None
) -> dict[str, float]:
    """Play test episodes and return the mean win rate, return and length.

    All sub-environments of a vector environment play the same number of episodes. Episodes in which the simulator failed
    are not counted. The global random streams are restored afterwards.

    Args:
        policy: The joint policy, a function of a vector environment's arrays; see `JointPolicy`.
        env: The environment, which is reset first. A DM2 wrapper around it is removed, because test episodes must not train
            the discriminators.
        episodes: How many complete episodes to play.
        seed: Seeds the environment and the sampled actions.

    Returns:
        The means ``"return"`` (the sum over steps of the mean environment reward of the agents that were present before the
        step), ``"length"`` (joint steps) and, if the environment reports wins, ``"win_rate"`` (of the episodes for which
        it does), each with its standard error under ``"<name>_se"`` (NaN for a single episode), and ``"episodes"``.

    Raises:
        TypeError: ``policy`` is not such a function, or ``env`` is not a multi-agent environment.
        ValueError: ``episodes`` is below 1, ``seed`` is no integer, or the policy was made for other agents or spaces.
        RuntimeError: The simulator failed in more than ten episodes, and in more than ``episodes``.
    """
    episodes = _checks.integer("episodes", episodes, least=1)
    seed = _checks.integer("seed", seed, none=True)
    _checks.policy(policy)
    env = without_matcher(env)
    venv = as_vector_env(env, "evaluate() plays")
    outer = GlobalRNGState.capture()
    GlobalRNGState.seeded(derive_seed(seed, "evaluation")).restore()
    try:
        played = list(play(venv, policy, episodes, seed))
    finally:
        outer.restore()
    result = {"episodes": float(len(played))}
    columns: dict[str, list[Any]] = {
        "win_rate": [float(episode.won) for episode in played if episode.won is not None],
        "return": [episode.team_return for episode in played],
        "length": [float(episode.length) for episode in played],
    }
    for name, values in columns.items():
        if values:
            result[name] = float(np.mean(values))
            # The standard error of a mean needs two episodes.
            several = len(values) > 1
            result[f"{name}_se"] = float(np.std(values, ddof=1) / np.sqrt(len(values))) if several else float("nan")
    return result


def simulators(env: Any) -> set[int]:
    """The simulators that an environment plays in, by identity: two environments that share one disturb each other."""
    return {id(getattr(each, "unwrapped", each)) for layer in layers(env) for each in (layer, *getattr(layer, "envs", ()))}
