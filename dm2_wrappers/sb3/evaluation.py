"""Test episodes: win rate, return and length with standard errors, on the environment's own rewards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from dm2_wrappers.random_state import RandomState, derive_seed
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
        env: Where to play; it is reset first.
        episodes: How many.
        seed: Seeds environment and sampled actions.

    Returns:
        ``"return"`` (the team's: mean over agents of the summed environment rewards), ``"length"`` (joint steps),
        ``"episodes"`` and, where the environment reports wins, ``"win_rate"``; each mean with its standard error under
        ``"<name>_se"``.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes!r}")
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
            result[f"{name}_se"] = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return result


def _play(
    policy: TeamPolicy, env: MultiAgentVectorEnv, episodes: int, seed: int | None
) -> tuple[list[float], list[float], list[float]]:
    n = env.num_envs
    wanted: NDArray[np.int64] = np.full(n, episodes // n)
    wanted[: episodes % n] += 1
    observations, infos = env.reset(seed=seed)
    policy.start_episode(np.ones(n, bool))
    episode_return, length = np.zeros(n), np.zeros(n)
    returns: list[float] = []
    lengths: list[float] = []
    wins: list[float] = []
    while wanted.any():
        observations, rewards, terminations, truncations, infos = env.step(policy(observations, infos))
        episode_return += infos.get("env_reward", rewards).mean(axis=1)
        length += 1
        done = np.all(terminations | truncations, axis=1)
        broken = infos.get("broken", np.zeros(n, bool))
        for copy in np.flatnonzero(done & ~broken & (wanted > 0)):
            wanted[copy] -= 1
            returns.append(float(episode_return[copy]))
            lengths.append(float(length[copy]))
            if "battle_won" in infos:
                wins.append(float(infos["battle_won"][copy]))
        episode_return[done], length[done] = 0.0, 0.0
        policy.start_episode(done)
    return returns, lengths, wins
