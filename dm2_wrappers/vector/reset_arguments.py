"""Checks of what ``reset`` is given, for every environment of the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dm2_wrappers import _checks


def sub_env_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """One seed for each sub-environment: ``seed + i`` of an integer.

    Args:
        seed: An integer, None, or one of either for each sub-environment.
        num_envs: N.

    Raises:
        ValueError: Something else, or a sequence of another length than there are sub-environments.
    """
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, int | np.integer):
        first = _checks.integer("seed", seed)
        return [first + i for i in range(num_envs)]
    expected = f"seed must be an integer or one for each of {num_envs} sub-environments, got"
    if not isinstance(seed, Sequence | np.ndarray) or isinstance(seed, str):
        raise ValueError(f"{expected} {_checks.shown(seed)}")
    if len(seed) != num_envs:
        raise ValueError(f"{expected} {len(seed)}")
    return [_checks.integer(f"the seed of sub-environment {i}", one, none=True) for i, one in enumerate(seed)]


def reset_options(options: Any) -> dict[Any, Any] | None:
    """The options as a new dict, or None.

    Raises:
        TypeError: The options are neither a dict nor None.
    """
    return _checks.mapping("the options of reset()", options)
