"""Environments: SMAX (JaxMARL), the embedded default, SMAC (StarCraft II), the paper's, and Gymnasium's.

``parallel_env("smax:5m_vs_6m")``, ``parallel_env("smac:5m_vs_6m")`` and ``vector_env("smax:5m_vs_6m", 64)`` find the
backend by the part before the colon. `from_gymnasium` adapts environments with Gymnasium's interface.

A backend is a package in this folder, named in `BACKENDS`, with

- ``parallel_env(scenario, **options)``, a PettingZoo ``ParallelEnv``,
- ``vector_env(scenario, num_envs, **options)``, a `MultiAgentVectorEnv`,
- ``NUM_ENVS``, the number of sub-environments to play at once by default,
- a module ``install`` with ``findings()``, which tells ``python -m dm2_wrappers.doctor`` what is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pettingzoo import ParallelEnv

    from dm2_wrappers.envs.gymnasium_envs import from_gymnasium
    from dm2_wrappers.vector import MultiAgentVectorEnv

BACKENDS = ("smax", "smac")  # the first one is the default

__all__ = ["BACKENDS", "default_num_envs", "from_gymnasium", "parallel_env", "vector_env", *BACKENDS]


def __getattr__(name: str) -> Any:
    if name in BACKENDS:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "from_gymnasium":
        return importlib.import_module(f"{__name__}.gymnasium_envs").from_gymnasium
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def parallel_env(env_id: str, **options: Any) -> ParallelEnv:
    """A PettingZoo ``ParallelEnv`` by name, e.g. "smax:5m_vs_6m" (a bare scenario is SMAX's).

    Raises:
        ValueError: Unknown backend or scenario.
    """
    backend, scenario = _split(env_id)
    return backend.parallel_env(scenario, **options)


def vector_env(env_id: str, num_envs: int, **options: Any) -> MultiAgentVectorEnv:
    """A batched environment by name, e.g. "smax:5m_vs_6m" (a bare scenario is SMAX's).

    Raises:
        ValueError: Unknown backend or scenario.
    """
    backend, scenario = _split(env_id)
    return backend.vector_env(scenario, num_envs, **options)


def default_num_envs(env_id: str) -> int:
    """How many sub-environments to play at once by default: 64 of SMAX, or 4 StarCrafts."""
    backend, _ = _split(env_id)
    return backend.NUM_ENVS


def _split(env_id: str) -> tuple[Any, str]:
    if not isinstance(env_id, str):
        raise ValueError(f"env_id must be a name, such as 'smax:5m_vs_6m', got {env_id!r}")
    backend, colon, scenario = env_id.partition(":")
    if not colon:
        backend, scenario = BACKENDS[0], env_id
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r} in {env_id!r}: expected one of {', '.join(BACKENDS)}")
    return importlib.import_module(f"{__name__}.{backend}"), scenario
