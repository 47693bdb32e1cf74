"""Test episodes: win rate, return and length with standard errors, on the environment's own rewards."""

from __future__ import annotations

from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from dm2_wrappers.flatten import without_matcher
from dm2_wrappers.random_state import RandomState, derive_seed
from dm2_wrappers.recording import Quota
from dm2_wrappers.sb3.policy import TeamPolicy
from dm2_wrappers.vector import MultiAgentVectorEnv, vectorize


def evaluate(
    policy: TeamPolicy, env: ParallelEnv | MultiAgentVectorEnv, episodes: int = 32, seed: int | None = None
) -> dict[str, float]:
    """Play ``episodes`` whole episodes.

    Every copy of a vector environment contributes equally many (the first to finish would be the short ones). Episodes
    that the simulator broke are not counted. Neither the global random streams nor the learners' are touched.

    Args:
        policy: The joint policy; its ``deterministic`` says whether actions are sampled.
        env: Where to play; it is reset first. Under a DM2 wrapper its environment is played: test episodes must not
            train the discriminators.
        episodes: How many.
        seed: Seeds environment and sampled actions.

    Returns:
        ``"return"`` (the team's: the sum over steps of the mean environment reward of the agents that were there),
        ``"length"`` (joint steps), ``"episodes"`` and, where the environment reports wins, ``"win_rate"``; each mean
        with its standard error under ``"<name>_se"``, NaN of a single episode.

    Raises:
        ValueError: ``episodes`` below 1.
        RuntimeError: More episodes broke than were to be played, and more than ten.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes!r}")
    env = without_matcher(env)
    venv = env if isinstance(env, MultiAgentVectorEnv) else vectorize(lambda: env, 1)
    outer = RandomState.capture()
    RandomState.seeded(derive_seed(seed, "evaluation")).restore()
    try:
        returns, lengths, wins = _play(policy, venv, episodes, seed)
    finally:
        outer.restore()
    result = {"episodes": float(len(returns))}
    for name, values in (("win_rate", wins), ("return", returns), ("length", lengths)):
        if values:
            result[name] = float(np.mean(values))
            # The standard error of a mean needs two episodes.
            several = len(values) > 1
            result[f"{name}_se"] = float(np.std(values, ddof=1) / np.sqrt(len(values))) if several else float("nan")
    return result


def simulators(env: Any) -> set[int]:
    """Which simulators an environment plays in, by identity: two that share one disturb each other's episodes."""
    env = without_matcher(env)
    return {id(getattr(each, "unwrapped", each)) for each in (env, *getattr(env, "envs", ()))}


def _play(
    policy: TeamPolicy, env: MultiAgentVectorEnv, episodes: int, seed: int | None
) -> tuple[list[float], list[float], list[float]]:
    n = env.num_envs
    quota = Quota(episodes, n)
    observations, infos = env.reset(seed=seed)
    policy.start_episode(np.ones(n, bool))
    present = np.ones((n, env.num_agents), dtype=bool)
    episode_return, length = np.zeros(n), np.zeros(n)
    returns: list[float] = []
    lengths: list[float] = []
    wins: list[float] = []
    while quota.owed.any():
        observations, rewards, terminations, truncations, infos = env.step(policy(observations, infos))
        episode_return += np.mean(infos.get("env_reward", rewards), axis=1, where=present)
        length += 1
        ended = terminations | truncations
        done = np.all(ended, axis=1)
        present = ~ended | done[:, None]
        broken = infos.get("broken", np.zeros(n, bool))
        for copy in map(int, np.flatnonzero(done & (quota.owed > 0))):
            if not quota.keep(copy, broken=bool(broken[copy])):
                continue
            returns.append(float(episode_return[copy]))
            lengths.append(float(length[copy]))
            if "battle_won" in infos:
                wins.append(float(infos["battle_won"][copy]))
        episode_return[done], length[done] = 0.0, 0.0
        policy.start_episode(done)
    return returns, lengths, wins
