"""Algorithm 1 on RLlib's episodes: what the agents saw goes to the matcher, what it pays goes into the rewards."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from dm2_wrappers.matching import DistributionMatcher


def mix_rewards(
    episodes: Sequence[MultiAgentEpisode],
    matcher: DistributionMatcher,
    coefficients: Mapping[str, float],
    env_coefficient: float,
) -> tuple[list[MultiAgentEpisode], dict[str, float]]:
    """Lines 6 to 11 for one rollout: record, update the discriminators, pay with the updated ones, mix.

    An agent's observations count while it is alive, and not in episodes that the simulator broke; other steps get r_env
    only. Pieces of a broken episode in earlier rollouts have been recorded already. The episodes that are passed stay as
    they are, because a local env runner computes its metrics from them.

    Args:
        episodes: All env runners' episodes, or pieces of them.
        matcher: The discriminators; updated once.
        coefficients: Each agent's c.
        env_coefficient: The factor on r_env.

    Returns:
        The episodes with ``env_coefficient * r_env + c * r_gail`` as rewards, and metrics: those of the update, and the
        means "env_reward/<agent>" and "gail_reward/<agent>" over the steps that counted.

    Raises:
        TypeError: Episodes of a single-agent environment.
        ValueError: Those of `DistributionMatcher.algorithm1`.
    """
    mixed = [_own(episode) for episode in episodes]
    broken = {episode.id_ for episode in mixed if any(map(_says_broken, episode.agent_episodes.values()))}
    pieces, counts = [], []
    for episode in mixed:
        for piece in filter(len, episode.agent_episodes.values()):
            pieces.append(piece)
            counts.append(np.zeros(len(piece), bool) if episode.id_ in broken else _lived(piece))
    chunks = [(piece.agent_id, _observations(piece)[count]) for piece, count in zip(pieces, counts, strict=True)]
    if not any(map(np.any, counts)):
        gail_rewards: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(pieces)
        metrics: dict[str, float] = {"trained": 0.0, "transitions": 0.0}
    else:
        gail_rewards = matcher.algorithm1(chunks)  # lines 6 to 10
        metrics = dict(matcher.metrics)
    env: dict[str, list[NDArray[np.float32]]] = {}
    gail: dict[str, list[NDArray[np.float32]]] = {}
    for piece, count, paid in zip(pieces, counts, gail_rewards, strict=True):
        # Own and float32: arrays from another process are read-only, and whole numbers would cut off fractions.
        piece.rewards = copy.copy(piece.rewards)
        piece.rewards.data = np.array(piece.rewards.data, np.float32)
        rewards = piece.get_rewards(slice(0, len(piece)))
        env.setdefault(piece.agent_id, []).append(rewards[count])
        gail.setdefault(piece.agent_id, []).append(paid)
        rewards = np.float32(env_coefficient) * rewards
        rewards[count] += np.float32(coefficients[piece.agent_id]) * paid  # line 11
        piece.set_rewards(new_data=rewards, at_indices=slice(0, len(piece)))
    for name, by_agent in {"env_reward": env, "gail_reward": gail}.items():
        joined = {agent: np.concatenate(parts) for agent, parts in by_agent.items()}
        metrics |= {f"{name}/{agent}": float(each.mean()) for agent, each in joined.items() if len(each)}
    return mixed, metrics


def _own(episode: MultiAgentEpisode) -> MultiAgentEpisode:
    """A copy whose rewards and flags may change; the rest of the data is shared."""
    if not isinstance(episode, MultiAgentEpisode):
        raise TypeError(
            f"distribution matching needs the episodes of a multi-agent environment, got {type(episode).__name__}; "
            "pass a PettingZoo ParallelEnv to .environment(make_env)"
        )
    mine = copy.copy(episode)
    pieces = {agent: copy.copy(piece) for agent, piece in episode.agent_episodes.items()}
    mine.agent_episodes = {agent: piece if piece.is_numpy else piece.to_numpy() for agent, piece in pieces.items()}
    if episode.is_terminated:
        for piece in mine.agent_episodes.values():
            # Not the environment's mark but RLlib's, when all agents are cut off by a time limit at once.
            if piece.is_truncated:
                piece.is_terminated = False
    return mine


def _says_broken(piece: SingleAgentEpisode) -> bool:
    """Whether the simulator broke the joint episode; an agent that has left before is not told."""
    infos = piece.get_infos(slice(0, len(piece) + 1))
    return bool(infos and infos[-1] and infos[-1].get("broken", False))


def _lived(piece: SingleAgentEpisode) -> NDArray[np.bool_]:
    """The steps before which the agent was alive, bool [n]."""
    infos = piece.get_infos(slice(0, len(piece)))
    return np.array([bool((info or {}).get("alive", True)) for info in infos])


def _observations(piece: SingleAgentEpisode) -> NDArray[Any]:
    """What the agent saw before its actions, [n, ...]; the observation after the last one is no sample."""
    observations = piece.get_observations(slice(0, len(piece)))
    return observations["observation"] if isinstance(observations, Mapping) else observations
