"""SMAX, JaxMARL's StarCraft-like battles, which do not need StarCraft II.

``parallel_env("5m_vs_6m")`` is a PettingZoo ``ParallelEnv``; ``vector_env("5m_vs_6m", 64)`` plays 64 battles at once
as arrays (`dm2_wrappers.vector`). Both are the same jitted step, so both play the same episode for the same seed.

SMAX differs from SMAC: no shields, other weapon ranges, a 32 x 32 map, a scripted enemy, one time limit for every
scenario. Never report a result on one as a result on the other.
"""

from __future__ import annotations

from typing import Any

from dm2_wrappers.envs.smax import maps
from dm2_wrappers.envs.smax.parallel import SMAXParallelEnv
from dm2_wrappers.envs.smax.vectorized import SMAXVectorEnv

NUM_ENVS = 64  # sub-environments by default: more are hardly faster


def parallel_env(scenario: str, *, render_mode: str | None = None, **options: Any) -> SMAXParallelEnv:
    """SMAX as a PettingZoo ``ParallelEnv`` with action masks.

    Args:
        scenario: A name from ``scenarios()``, such as "5m_vs_6m".
        render_mode: None, "rgb_array" or "human".
        **options: The keyword arguments of ``vector_env``: ``reward_scale``, ``death``, ``invalid_action``,
            ``max_steps`` and SMAX's own.

    Raises:
        ValueError: An unknown scenario (the message has the nearest names) or option value.
        ImportError: JaxMARL is not installed; the message has the command that installs it.
    """
    return SMAXParallelEnv(SMAXVectorEnv(scenario, 1, **options), render_mode=render_mode)


def vector_env(scenario: str, num_envs: int, **options: Any) -> SMAXVectorEnv:
    """``num_envs`` battles stepped together as arrays [N, K, ...]; options as for `SMAXVectorEnv`."""
    return SMAXVectorEnv(scenario, num_envs, **options)


def scenarios() -> list[str]:
    """The names of every scenario."""
    return maps.names()
