"""The paper's reward mixture coefficient c (line 11 of Algorithm 1): one for all agents, or one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks

Coefficient = float | Mapping[str, float]
_LARGEST = 1e18  # the mixed reward must fit float32


def checked(coefficient: Coefficient, agents: Sequence[str]) -> Coefficient:
    """The coefficient as a float or a dict of floats, one for each agent.

    Raises:
        ValueError: Not a number between 0 and 1e18 for each agent.
    """
    if not isinstance(coefficient, Mapping):
        return _checked("coefficient", coefficient)
    if set(coefficient) != set(agents):
        raise ValueError(
            f"coefficient must have one number for each of {list(agents)}, got numbers for {sorted(map(str, coefficient))}"
        )
    return {agent: _checked(f"coefficient of agent {agent!r}", coefficient[agent]) for agent in agents}


def as_array(coefficient: Coefficient, agents: Sequence[str]) -> NDArray[np.float32]:
    """Each agent's c, float32 [K]."""
    if isinstance(coefficient, Mapping):
        return np.array([coefficient[agent] for agent in agents], np.float32)
    return np.full(len(agents), coefficient, np.float32)


def _checked(name: str, value: Any) -> float:
    number = _checks.number(name, value, least=0)
    if number > _LARGEST:
        raise ValueError(f"{name} must be at most {_LARGEST:g}, got {value!r}")
    return number
