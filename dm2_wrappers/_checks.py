"""Checks of options, each written once. An error message says what was expected and what was given."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


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


def flags(name: str, value: Any, shape: tuple[int, ...] | None = None) -> NDArray[np.bool_]:
    """An array of flags, as a new array of bool. Numbers must be 0 or 1.

    Args:
        name: The argument's name, for the error.
        value: What came.
        shape: The shape that it must have; any by default.

    Raises:
        ValueError: Something else than flags, or another shape.
    """
    try:
        array = np.array(value)
    except (TypeError, ValueError, RuntimeError):  # lists of unequal lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf" or not (array.dtype.kind == "b" or ((array == 0) | (array == 1)).all()):
        raise ValueError(f"{name} must hold True or False, got {shown(value)}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"expected {name} of shape {shape}, got {array.shape}; give one flag each")
    return array.astype(bool, copy=False)


def mapping(name: str, value: Any) -> dict[Any, Any] | None:
    """A dict, as a new one, or None.

    Raises:
        TypeError: The value is neither.
    """
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict or None, got {shown(value)}")
    return None if value is None else dict(value)


def path(name: str, value: Any) -> Path:
    """The name of a file.

    Raises:
        TypeError: The value is neither a string nor a path.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(fspath := os.fspath(value), bytes):
        raise TypeError(f"{name} must be the name of a file, a string or a pathlib.Path, got {shown(value)}")
    return Path(fspath)


def shown(value: Any) -> str:
    """A value for an error message, on one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


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


class Fixed(Generic[T]):
    """An attribute that is set once, when its object is made.

    Changing such an option later would have no effect, so it raises an error that says so.

    Example:
        >>> class Team:
        ...     order = Fixed[str]()
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Fixed[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        if self._name not in vars(instance):
            raise AttributeError(f"{owner.__name__!r} object has no attribute {self._name!r}")
        return vars(instance)[self._name]

    def __set__(self, instance: object, value: T) -> None:
        if self._name in vars(instance):
            kind = type(instance).__name__
            raise AttributeError(f"{self._name} cannot be changed once {kind} is made: make a new {kind}")
        vars(instance)[self._name] = value
