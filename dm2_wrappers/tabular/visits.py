"""Visitation distributions of joint policies, by solving linear systems."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from dm2_wrappers.tabular.game import Array, Game, check_policies

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # the agents' action axes, for einsum; "s" and "t" are states


def joint_transition(game: Game, policies: Sequence[Array], *, keep: int | None = None) -> Array:
    """The transition with the agents' actions averaged out; their policies must be valid.

    Args:
        game: The game.
        policies: One [..., S, A_i] per agent.
        keep: An agent whose actions stay; None averages all.

    Returns:
        [..., S, S], or [..., S, A_keep, S].
    """
    return average(game.transition, policies, keep=keep, last="t")


def average(table: Array, policies: Sequence[Array], *, keep: int | None = None, last: str = "") -> Array:
    """A table [S, A_1, ..., A_K] averaged over the agents' actions, except those of ``keep``.

    Args:
        table: Read for every joint action.
        policies: One [..., S, A_i] per agent.
        keep: An agent whose actions stay.
        last: A letter if the table has one more axis at its end.
    """
    axes = "s" + _LETTERS[: len(policies)] + last
    for i, policy in enumerate(policies):
        if i != keep:
            left = axes.replace(_LETTERS[i], "")
            table = np.einsum(f"...{axes},...s{_LETTERS[i]}->...{left}", table, policy)
            axes = left
    return table


def state_visitation(game: Game, joint: Array) -> Array:
    """Visitation [..., S] of a joint transition [..., S, S]: rho (I - gamma P) = (1 - gamma) start."""
    system = np.eye(game.num_states) - game.gamma * np.swapaxes(joint, -1, -2)
    start = np.broadcast_to((1 - game.gamma) * game.start, joint.shape[:-1])
    return np.asarray(np.linalg.solve(system, start[..., None])[..., 0], dtype=np.float64)


def visitation(game: Game, policies: Sequence[ArrayLike]) -> Array:
    """The discounted state visitation distribution, rho_pi(s) = (1 - gamma) sum_t gamma^t P(s_t = s) (section 4.1).

    Args:
        game: The game.
        policies: One [S, A_i] per agent, rows that sum to 1. Leading axes are allowed: [..., S, A_i] holds many sets of
            policies, which are computed at once.

    Returns:
        float64 [S] (or [..., S]), which sums to 1.

    Raises:
        ValueError: The policies do not fit the game.
    """
    return state_visitation(game, joint_transition(game, check_policies(game, policies)))


def marginals(game: Game, policies: Sequence[ArrayLike]) -> list[Array]:
    """Each agent's state-action visitation distribution, rho_{pi_i, pi_i-}(s, a) = pi_i(a|s) rho_pi(s) (section 3).

    Args:
        game: The game.
        policies: As for :func:`visitation`.

    Returns:
        One float64 [S, A_i] (or [..., S, A_i]) per agent; each sums to 1.

    Raises:
        ValueError: The policies do not fit the game.
    """
    tables = check_policies(game, policies)
    rho = state_visitation(game, joint_transition(game, tables))
    return [rho[..., None] * table for table in tables]


def occupancy(game: Game, policies: Sequence[ArrayLike]) -> Array:
    """The joint state-action visitation distribution, rho_pi(s, a_1..a_K) (section 3).

    Args:
        game: The game.
        policies: As for :func:`visitation`.

    Returns:
        float64 [S, A_1, ..., A_K] (or with leading axes), which sums to 1.

    Raises:
        ValueError: The policies do not fit the game.
    """
    tables = check_policies(game, policies)
    axes = _LETTERS[: game.num_agents]
    inputs = ",".join(["...s", *(f"...s{axis}" for axis in axes)])
    return np.einsum(f"{inputs}->...s{axes}", state_visitation(game, joint_transition(game, tables)), *tables)


def total_variation(one: ArrayLike, other: ArrayLike) -> float:
    """Half the sum of absolute differences of two distributions of the same shape: 0 (equal) to 1 (disjoint)."""
    return 0.5 * float(np.abs(np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)).sum())


def largest_eps(game: Game) -> float:
    """The largest epsilon for which Condition 1 holds: the least visitation of any state under any joint policy.

    For each state, policy iteration finds a joint policy that visits it least. It suffices to search the deterministic
    ones, since the visitation of one state is a return.

    Returns:
        epsilon, 0 <= epsilon <= 1 / S. It is 0 if some joint policy avoids some state.
    """
    transition = game.transition.reshape(game.num_states, -1, game.num_states)  # [S, joint actions, S]
    states = np.arange(game.num_states)
    least = 1.0
    for state in states:
        cost = (1 - game.gamma) * (states == state)
        chosen = np.zeros(game.num_states, np.int64)
        while True:
            values = np.linalg.solve(np.eye(game.num_states) - game.gamma * transition[states, chosen], cost)
            options = transition @ values  # [S, joint actions]
            better = options.min(axis=1) < options[states, chosen] - 1e-13  # ignore rounding, or ties never settle
            if not better.any():
                break
            chosen = np.where(better, options.argmin(axis=1), chosen)
        least = min(least, max(0.0, float(game.start @ values)))  # rounding may leave less than 0
    return least
