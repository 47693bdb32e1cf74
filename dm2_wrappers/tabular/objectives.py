"""The paper's three objectives: J (equation 2), L (equation 3) and L_epsilon (equation 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dm2_wrappers.tabular.game import Array, Game, check_expert, check_policies
from dm2_wrappers.tabular.visits import joint_transition, state_visitation


class Objectives(NamedTuple):
    """What :func:`objectives` returns. Floats, or arrays [...] for policies with leading axes."""

    J: Array
    L: Array
    L_eps: Array


def match_probabilities(game: Game, policies: Sequence[ArrayLike], expert: ArrayLike) -> Array:
    """The probability that agent i takes expert i's action, p_i(s) = pi_i(a^E_i(s) | s): float64 [..., K, S].

    Raises:
        ValueError: The policies or the experts do not fit the game.
    """
    tables, actions = check_policies(game, policies), check_expert(game, expert)
    states = np.arange(game.num_states)
    return np.stack([table[..., states, row] for table, row in zip(tables, actions, strict=True)], axis=-2)


def objectives(game: Game, policies: Sequence[ArrayLike], expert: ArrayLike, eps: float) -> Objectives:
    """How well a joint policy matches deterministic experts.

    With p_i(s) the probability that agent i takes its expert's action:

    * J = sum_s rho(s) [(K - 1) + prod_i p_i(s)] (equation 2),
    * L = sum_s rho(s) sum_i p_i(s) (equation 3, with Assumption 1),
    * L_eps = eps sum_s sum_i p_i(s) (equation 4).

    Theorem 1 is J >= L; Corollary 1 is L >= L_eps, if no state is visited less than ``eps``.

    Args:
        game: The game.
        policies: One [S, A_i] per agent; leading axes hold many sets of policies.
        expert: Integers [K, S], the experts' actions.
        eps: Least visitation of a state, such as :func:`largest_eps`.

    Returns:
        (J, L, L_eps).

    Raises:
        ValueError: The policies or the experts do not fit the game, or ``eps`` is outside [0, 1].
    """
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must be between 0 and 1, but it is {eps}; largest_eps(game) gives the game's own")
    match = match_probabilities(game, policies, expert)
    rho = state_visitation(game, joint_transition(game, check_policies(game, policies)))
    joint = (rho * (game.num_agents - 1 + match.prod(axis=-2))).sum(axis=-1)
    lower = (rho * match.sum(axis=-2)).sum(axis=-1)
    return Objectives(joint[()], lower[()], (eps * match.sum(axis=(-2, -1)))[()])
