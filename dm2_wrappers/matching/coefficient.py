"""The paper's reward mixture coefficient c (line 11 of Algorithm 1): one for all agents, one for each, or a schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks

if TYPE_CHECKING:
    from dm2_wrappers.demonstrations import Demonstrations

Numbers = float | Mapping[str, float]
_LARGEST = 1e18  # the mixed reward must fit float32


@dataclass(frozen=True)
class Progress:
    """What a schedule is told at an update; r_gail and r_env are those of the steps since the update before.

    Attributes:
        steps: Joint environment steps, summed over sub-environments, since the schedule was given to its wrapper.
        returns: The environment's own returns (the mean over the agents that were present) of the episodes that ended
            since the last update, [E]. Episodes that the simulator broke do not count.
        live_steps: How many steps each agent was alive, [K]; where it is 0 the next four are 0, too.
        env_mean: The mean of each agent's env_coefficient * r_env over its live steps, [K].
        env_std: Its standard deviation, [K].
        gail_mean: The mean of each agent's r_gail, before c, over its live steps, [K].
        gail_std: Its standard deviation, [K].
    """

    steps: int
    returns: NDArray[np.float64]
    live_steps: NDArray[np.int64]
    env_mean: NDArray[np.float64]
    env_std: NDArray[np.float64]
    gail_mean: NDArray[np.float64]
    gail_std: NDArray[np.float64]


class Schedule(ABC):
    """A coefficient that changes while the team learns; ``coefficient=`` takes one wherever it takes a number.

    Only `coefficient` must be written. A schedule belongs to one team. For reproducible runs it must be deterministic:
    its c may depend on what `update` was told, and on nothing else. Whatever it remembers belongs into `state_dict`.

    Example:
        >>> class Halving(Schedule):
        ...     def __init__(self, c): self.c = c
        ...     def coefficient(self): return self.c
        ...     def update(self, progress): self.c /= 2
        ...     def state_dict(self): return {"c": self.c}
        ...     def load_state_dict(self, state): self.c = state["c"]
    """

    def begin(self, agents: Sequence[str], demonstrations: Demonstrations) -> None:  # noqa: B027  optional
        """The schedule was given to a wrapper or a team; called before everything else, and never to start anew."""

    @abstractmethod
    def coefficient(self) -> Numbers:
        """The present c, of at least 0: one for all agents, or ``{agent: c}`` of all agents."""

    def update(self, progress: Progress) -> None:  # noqa: B027  optional
        """Called once after each update of the discriminators, before the next reward is paid."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that `update` changes, in types that ``torch.load(weights_only=True)`` accepts."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027  optional
        """Take over what `state_dict` returned."""


Coefficient = Numbers | Schedule


def checked(coefficient: Coefficient, agents: Sequence[str]) -> Coefficient:
    """The coefficient as a float, a dict of floats, one for each agent, or a schedule.

    Raises:
        ValueError: Not a number between 0 and 1e18 for each agent.
    """
    if isinstance(coefficient, Schedule):
        return coefficient
    return checked_numbers("coefficient", coefficient, agents)


def checked_fixed(coefficient: Any, agents: Sequence[str], where: str) -> Numbers:
    """A coefficient that does not change by itself, for integrations that cannot tell a schedule what happens.

    Raises:
        ValueError: A schedule, or not a number between 0 and 1e18 for each agent.
    """
    if isinstance(coefficient, Schedule):
        raise ValueError(
            f"{where} takes no schedule, got {type(coefficient).__name__}: pass a number, and assign another one to "
            ".coefficient between rollouts"
        )
    return checked_numbers("coefficient", coefficient, agents)


def checked_numbers(name: str, numbers: Numbers, agents: Sequence[str] | None = None) -> Numbers:
    """A float, or a dict of floats, one for each agent.

    Args:
        name: The option's name, for the error.
        numbers: What the user gave.
        agents: Names; None if they are not known yet.

    Raises:
        ValueError: Not a number between 0 and 1e18 for each agent.
    """
    if not isinstance(numbers, Mapping):
        if isinstance(numbers, type) and issubclass(numbers, Schedule):
            raise ValueError(f"{name} must be a number or a schedule, got the class {numbers.__name__}; make one of it")
        return _checked(name, numbers)
    if any(isinstance(each, Schedule) for each in numbers.values()):
        raise ValueError(f"{name} takes one schedule for all agents, and in a dict only numbers, got {numbers!r}")
    if agents is not None and set(numbers) != set(agents):
        raise ValueError(
            f"{name} must have one number for each of {list(agents)}, got numbers for {sorted(map(str, numbers))}"
        )
    return {agent: _checked(f"{name} of agent {agent!r}", numbers[agent]) for agent in agents or numbers}


def as_array(coefficient: Coefficient, agents: Sequence[str]) -> NDArray[np.float32]:
    """Each agent's present c, float32 [K].

    Raises:
        ValueError: A schedule's c is not a number between 0 and 1e18 for each agent.
    """
    if isinstance(coefficient, Schedule):
        name = f"the coefficient of {type(coefficient).__name__}"
        return as_array(checked_numbers(name, coefficient.coefficient(), agents), agents)
    if isinstance(coefficient, Mapping):
        return np.array([coefficient[agent] for agent in agents], np.float32)
    return np.full(len(agents), coefficient, np.float32)


def _checked(name: str, value: Any) -> float:
    number = _checks.number(name, value, least=0)
    if number > _LARGEST:
        raise ValueError(f"{name} must be at most {_LARGEST:g}, got {value!r}")
    return number
