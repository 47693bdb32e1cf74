"""Looks inside wrappers: does one of them have a matcher, and what does it wrap?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Matcher:
    """Base class of `DistributionMatcher`, by which this module recognizes one."""


def layers(env: Any) -> Iterator[Any]:
    """The environment, then what it wraps, and so on down to the innermost one."""
    while env is not None:
        yield env
        env = getattr(env, "__dict__", {}).get("env")


def owns_matcher(env: Any) -> bool:
    """Whether the environment, or one that it wraps, has a `DistributionMatcher` as its ``matcher``."""
    return any(_has_matcher(layer) for layer in layers(env))


def without_matcher(env: Any) -> Any:
    """Remove a DM2 wrapper, because test episodes must not reach the matcher. Other environments are returned unchanged.

    Raises:
        ValueError: The DM2 wrapper is itself wrapped, so it cannot be left out.
    """
    outer = env
    while _has_matcher(env) and "env" in env.__dict__:
        env = env.env
    if owns_matcher(env):
        raise ValueError(
            f"these episodes would train the discriminators, because {type(outer).__name__} wraps a DM2 wrapper; "
            "pass the environment without the DM2 wrapper, with the same other wrappers around it"
        )
    return env


def _has_matcher(env: Any) -> bool:
    return isinstance(getattr(env, "__dict__", {}).get("matcher"), Matcher)
