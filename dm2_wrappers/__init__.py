"""DM2: distribution matching for independent multi-agent learners, as an environment wrapper."""

import importlib
from typing import Any

__version__ = "0.2.0"

# Public name -> module that defines it. Loaded on first use, so that ``import dm2_wrappers`` stays light.
_NAMES = {
    "DM2ParallelEnv": "dm2_wrappers.wrapper",
    "DM2VectorEnv": "dm2_wrappers.wrapper",
    "Demonstrations": "dm2_wrappers.demonstrations",
    "Discriminators": "dm2_wrappers.matching",
    "DistributionMatcher": "dm2_wrappers.matching",
    "JointRollout": "dm2_wrappers.matching",
    "MultiAgentVectorEnv": "dm2_wrappers.vector",
    "MultiAgentVectorWrapper": "dm2_wrappers.vector",
    "evaluate": "dm2_wrappers.evaluation",
    "vectorize": "dm2_wrappers.vector",
}
_MODULES = ("compatibility", "envs", "lockstep", "sb3", "tabular", "testing", "torchrl")

__all__ = ["__version__", *sorted(_NAMES), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
