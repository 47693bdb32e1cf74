"""A finite Markov game (section 3 of the paper), and the checks of arguments that this package shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_ROUNDING = 1e-8  # how far a distribution's sum may be from 1


@dataclass(frozen=True, eq=False)
class Game:
    """A Markov game without rewards: K agents, S states, A_i actions of agent i.

    Attributes:
        transition: float64 [S, A_1, ..., A_K, S]: the probability of the next state (last axis), given the state and the
            joint action. Agents may have different numbers of actions.
        start: float64 [S], the distribution of the first state (rho_0 in the paper).
        gamma: Discount factor, 0 <= gamma < 1.

    Raises:
        ValueError: The shapes do not fit, a distribution does not sum to 1 or has a negative entry, or gamma is outside
            [0, 1).
    """

    transition: Array
    start: Array
    gamma: float

    def __post_init__(self) -> None:
        transition = np.array(self.transition, dtype=np.float64)
        start = np.array(self.start, dtype=np.float64)
        if transition.ndim < 3 or transition.shape[0] != transition.shape[-1]:
            raise ValueError(
                f"transition must have the shape [S, A_1, ..., A_K, S], but it is {list(transition.shape)}; "
                "put the state first, then one axis for each agent's actions, then the next state"
            )
        if start.shape != transition.shape[:1]:
            raise ValueError(
                f"start must have the shape [{transition.shape[0]}], one probability for each state of transition, "
                f"but it is {list(start.shape)}"
            )
        if not 0 <= self.gamma < 1:
            raise ValueError(f"gamma must be at least 0 and less than 1, but it is {self.gamma}")
        _check_distribution("transition", transition)
        _check_distribution("start", start)
        transition.setflags(write=False)
        start.setflags(write=False)
        object.__setattr__(self, "transition", transition)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "gamma", float(self.gamma))

    @property
    def num_agents(self) -> int:
        """K."""
        return self.transition.ndim - 2

    @property
    def num_states(self) -> int:
        """S."""
        return self.transition.shape[0]

    @property
    def num_actions(self) -> tuple[int, ...]:
        """A_1, ..., A_K."""
        return self.transition.shape[1:-1]


def check_policies(game: Game, policies: Sequence[ArrayLike]) -> list[Array]:
    """The policies as float64 arrays [..., S, A_i].

    Raises:
        ValueError: Not one policy per agent, a wrong shape, or rows that are no distributions.
    """
    if len(policies) != game.num_agents:
        raise ValueError(f"expected {game.num_agents} policies, one for each agent of the game, but got {len(policies)}")
    arrays = [_as_table(game, f"policies[{i}]", i, policy) for i, policy in enumerate(policies)]
    if len({array.shape[:-2] for array in arrays}) > 1:
        raise ValueError(
            "all policies must have the same leading axes (one set of policies for each), "
            f"but their shapes are {[list(array.shape) for array in arrays]}"
        )
    for i, array in enumerate(arrays):
        _check_distribution(f"policies[{i}]", array)
    return arrays


def check_marginals(game: Game, marginals: Sequence[ArrayLike], name: str = "marginals") -> list[Array]:
    """State-action distributions as float64 arrays [S, A_i], one for each agent.

    Raises:
        ValueError: Not one per agent, a wrong shape, or one that is no distribution over state-action pairs.
    """
    if len(marginals) != game.num_agents:
        raise ValueError(f"expected {game.num_agents} {name}, one for each agent of the game, but got {len(marginals)}")
    arrays = [_as_table(game, f"{name}[{i}]", i, mu) for i, mu in enumerate(marginals)]
    for i, array in enumerate(arrays):
        if array.ndim != 2:
            raise ValueError(f"{name}[{i}] must have two axes, [S, A_{i}], but its shape is {list(array.shape)}")
        _check_distribution(f"{name}[{i}]", array.reshape(-1))
    return arrays


def check_tables(game: Game, tables: Sequence[ArrayLike], name: str) -> list[Array]:
    """Rewards (or other tables) as float64 arrays [..., S, A_i], one for each agent.

    Raises:
        ValueError: Not one per agent, or a wrong shape.
    """
    if len(tables) != game.num_agents:
        raise ValueError(f"expected {game.num_agents} {name}, one for each agent of the game, but got {len(tables)}")
    return [_as_table(game, f"{name}[{i}]", i, table) for i, table in enumerate(tables)]


def check_expert(game: Game, expert: ArrayLike) -> NDArray[np.int64]:
    """The experts' actions as int64 [K, S].

    Raises:
        ValueError: A wrong shape, or actions that an agent does not have.
    """
    actions = np.asarray(expert)
    shape = (game.num_agents, game.num_states)
    if actions.shape != shape or actions.dtype.kind not in "iu":
        raise ValueError(
            f"expert must hold integers of shape {list(shape)}: each agent's action in each state, "
            f"but it is {actions.dtype} of shape {list(actions.shape)}"
        )
    for i, (row, number) in enumerate(zip(actions, game.num_actions, strict=True)):
        if row.min() < 0 or row.max() >= number:
            raise ValueError(f"agent {i} has the actions 0 to {number - 1}, but expert[{i}] is {row.tolist()}")
    return actions.astype(np.int64)


def check_agent(game: Game, agent: int) -> None:
    """Raise ``ValueError`` if the game has no agent of this number."""
    if not 0 <= agent < game.num_agents:
        raise ValueError(f"the game has the agents 0 to {game.num_agents - 1}, but agent is {agent}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ``ValueError`` if an option is none of its choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, but it is {value!r}")


def deterministic(actions: ArrayLike, num_actions: int) -> Array:
    """A policy [..., S, A] that takes the given actions [..., S] with probability 1."""
    return np.eye(num_actions)[np.asarray(actions)]


def expert_policies(game: Game, expert: ArrayLike) -> list[Array]:
    """The experts' policies, one [S, A_i] per agent, from their actions [K, S]."""
    return [deterministic(row, n) for row, n in zip(check_expert(game, expert), game.num_actions, strict=True)]


def _as_table(game: Game, name: str, agent: int, table: ArrayLike) -> Array:
    array = np.asarray(table, dtype=np.float64)
    shape = (game.num_states, game.num_actions[agent])
    if array.shape[-2:] != shape:
        raise ValueError(
            f"{name} must have the shape {list(shape)}: states by actions of agent {agent}, but it is {list(array.shape)}"
        )
    return array


def _check_distribution(name: str, array: NDArray[Any]) -> None:
    sums = array.sum(axis=-1)
    if not np.isfinite(array).all() or array.min() < -_ROUNDING or np.abs(sums - 1).max() > _ROUNDING:
        worst = sums.flat[np.abs(sums - 1).argmax()]
        raise ValueError(
            f"{name} must hold probabilities that sum to 1 over the last axis, but its least entry is {array.min():g} "
            f"and one sum is {worst:g}; divide by the sums"
        )
