"""Checks of options, each written once. An error message says what was expected and what was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """One of ``choices``.

    Raises:
        ValueError: The value is none of them.
    """
    if not any(value is one or (isinstance(value, str) and value == one) for one in choices):
        names = " or ".join(map(repr, choices)) if len(choices) < 3 else f"one of {', '.join(map(repr, choices))}"
        raise ValueError(f"{name} must be {names}, got {value!r}")
    return value


def integer(name: str, value: Any, *, least: int | None = None, none: bool = False) -> Any:
    """A whole number, as an ``int``. NumPy's integers are accepted; ``True`` and ``False`` are not.

    Args:
        name: The option's name, for the error.
        value: What the user gave.
        least: The smallest number that is allowed.
        none: Whether None is also allowed.

    Raises:
        ValueError: The value is not such a number.
    """
    if none and value is None:
        return None
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or (least is not None and value < least):
        limit = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} must be {'None or ' if none else ''}an integer{limit}, got {value!r}")
    return int(value)


def number(name: str, value: Any, *, least: float | None = None, above: float | None = None) -> float:
    """A finite number, as a ``float``.

    Args:
        name: The option's name, for the error.
        value: What the user gave.
        least: The smallest number that is allowed.
        above: A bound that the number must exceed.

    Raises:
        ValueError: The value is not such a number.
    """
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not np.isfinite(value) or (least is not None and value < least) or (above is not None and value <= above):
        limit = f" of at least {least:g}" if least is not None else f" above {above:g}" if above is not None else ""
        raise ValueError(f"{name} must be a finite number{limit}, got {value!r}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """True or False.

    Raises:
        ValueError: The value is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def policy(value: Any) -> Any:
    """A joint policy: anything that can be called.

    Raises:
        TypeError: It cannot be called, or is a class.
    """
    if not callable(value) or isinstance(value, type):
        hint = "; a learner's method is one, such as team.policy()" if hasattr(value, "predict") else ""
        raise TypeError(f"policy must be a function of all agents' observations, got {value!r}{hint}")
    return value


def widths(name: str, value: Any) -> tuple[int, ...]:
    """One or more layer widths, as a tuple of ints.

    Raises:
        ValueError: The value is not a sequence of integers of at least 1.
    """
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray) or not len(value):
        raise ValueError(f"{name} must hold one integer of at least 1 for each layer, got {value!r}")
    return tuple(integer(f"each width in {name}", width, least=1) for width in value)
