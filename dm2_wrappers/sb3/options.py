"""The options of `IndependentLearners`: checked once, and as plain numbers, which JSON and thus a checkpoint can hold."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from dm2_wrappers.matcher import DistributionMatcher
from dm2_wrappers.wrapper import Coefficient, DM2ParallelEnv, DM2VectorEnv, coefficients

UPDATE_EVERY = 4096


def take_over(
    env: Any,
    matcher: DistributionMatcher | None,
    coefficient: Coefficient | None,
    env_coefficient: float | None,
    update_every: int | None,
) -> tuple[Any, DistributionMatcher | None, Coefficient | None, float, int]:
    """The environment without its DM2 wrapper, and the options, of which the wrapper has brought its own.

    Raises:
        ValueError: An option that the wrapper has, too.
    """
    if isinstance(env, DM2ParallelEnv | DM2VectorEnv):
        own: dict[str, Any] = {"matcher": matcher, "coefficient": coefficient, "env_coefficient": env_coefficient}
        if env.update_every is not None:
            own["update_every"] = update_every
        twice = [name for name, value in own.items() if value is not None]
        if twice:
            raise ValueError(
                f"{type(env).__name__} has {', '.join(twice)} already: give them to the wrapper or to "
                "IndependentLearners, not to both"
            )
        matcher, coefficient, env_coefficient = env.matcher, env.coefficient, env.env_coefficient
        update_every = update_every if env.update_every is None else env.update_every
        env = env.env
    env_coefficient = 1.0 if env_coefficient is None else env_coefficient
    return env, matcher, coefficient, env_coefficient, UPDATE_EVERY if update_every is None else update_every


def checked_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """One of the words that the option knows."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, got {value!r}")
    return value


def checked_integer(name: str, value: Any, least: int | None = None) -> int:
    """A whole number (NumPy's, too; True is none) of at least ``least``, as an int."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or (least is not None and value < least):
        raise ValueError(f"{name} must be an integer{'' if least is None else f' of at least {least}'}, got {value!r}")
    return int(value)


def checked_env_coefficient(value: Any) -> float:
    """The factor on the environment's reward, as a float."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not np.isfinite(value) or value < 0:
        raise ValueError(f"env_coefficient must be a finite number of at least 0, got {value!r}")
    return float(value)


def checked_coefficient(value: Coefficient | None, agents: Sequence[str], matcher: Any) -> Coefficient | None:
    """The paper's c, as a float or a dict of floats; None exactly where there is no matcher."""
    if matcher is not None and value is None:
        raise ValueError("a matcher needs a coefficient: the paper's c, e.g. coefficient=0.3")
    if value is None:
        return None
    if matcher is None:
        raise ValueError("a coefficient needs a matcher: pass matcher=DistributionMatcher(demonstrations)")
    coefficients(value, agents)
    return {agent: float(c) for agent, c in value.items()} if isinstance(value, Mapping) else float(value)


def per_agent(value: Any, agents: tuple[str, ...], what: str) -> dict[str, Any]:
    """``value`` for every agent, or the mapping that it is."""
    if not isinstance(value, Mapping):
        if what == "algorithm" and inspect.isclass(value) and not issubclass(value, BaseAlgorithm):
            raise ValueError(f"algorithm must be a Stable-Baselines3 algorithm class, got {value.__name__}")
        return dict.fromkeys(agents, value)
    if set(value) != set(agents):
        raise ValueError(f"expected one {what} for each of {list(agents)}, got {sorted(value)}")
    return dict(value)
