"""The paper's reward mixture coefficient c (line 11 of Algorithm 1): one for all agents, or one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks

Coefficient = float | Mapping[str, float]


def checked(coefficient: Coefficient, agents: Sequence[str]) -> Coefficient:
    """The coefficient as a float or a dict of floats, one for each agent.

    Raises:
        ValueError: Not a finite number of at least 0 for each agent.
    """
    if not isinstance(coefficient, Mapping):
        return _checks.number("coefficient", coefficient, least=0)
    if set(coefficient) != set(agents):
        raise ValueError(
            f"coefficient must have one number for each of {list(agents)}, got numbers for {sorted(map(str, coefficient))}"
        )
    return {agent: _checks.number(f"coefficient of agent {agent!r}", coefficient[agent], least=0) for agent in agents}


def as_array(coefficient: Coefficient, agents: Sequence[str]) -> NDArray[np.float32]:
    """Each agent's c, float32 [K]."""
    if isinstance(coefficient, Mapping):
        return np.array([coefficient[agent] for agent in agents], np.float32)
    return np.full(len(agents), coefficient, np.float32)
