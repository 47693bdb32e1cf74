"""Definition 1 of the paper on a tabular game: an exact test of whether one joint policy has all these marginals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from dm2_wrappers._extras import require
from dm2_wrappers.tabular import Game, marginals, total_variation
from dm2_wrappers.tabular.game import Array, check_marginals
from dm2_wrappers.tabular.visits import joint_transition


@dataclass(frozen=True)
class Compatibility:
    """What :func:`check` found.

    Attributes:
        compatible: Whether some joint policy of independent agents has exactly these marginals.
        disagreement: The largest total variation between two agents' state distributions, 0 to 1. It is 0 for agents that
            visited the states together.
        flow_residual: How far the mean d of the agents' state distributions is from the flow of ``policies``: the sum
            over states of |d - (1 - gamma) start - gamma d P|. 0 if compatible.
        gaps: float64 [K], the total variation between each agent's marginal and that of ``policies``.
        lower_bound: For any joint policy, even one whose agents draw their actions together, some agent's total variation
            is at least this. 0 if compatible, but it may also be 0 otherwise.
        policies: The only joint policy that can have these marginals, one [S, A_i] per agent: the marginals' conditionals,
            uniform in states that are not visited.
    """

    compatible: bool
    disagreement: float
    flow_residual: float
    gaps: Array
    lower_bound: float
    policies: list[Array]


def check(game: Game, marginals: Sequence[ArrayLike], tol: float = 1e-9) -> Compatibility:
    """Decide whether the agents' demonstrations are compatible (Definition 1).

    A policy that has marginal mu_i takes action a in state s with probability mu_i(s, a) / sum_a mu_i(s, a) wherever
    mu_i visits s. So only one joint policy has to be checked. Its actions in other states do not matter: if it has these
    marginals, it never visits them.

    Args:
        game: The game.
        marginals: One [S, A_i] per agent: its demonstrations' state-action distribution, discounted by the game's gamma.
        tol: Gaps up to this count as 0. Estimated marginals are never exactly compatible: for recordings use
            :func:`shared_feature_test` and :func:`playback_test`.

    Returns:
        The verdict and the numbers behind it.

    Raises:
        ValueError: The marginals do not fit the game, or ``tol`` is negative.
        ImportError: SciPy is not installed.
    """
    if tol < 0:
        raise ValueError(f"tol must be at least 0, but it is {tol}")
    tables = check_marginals(game, marginals)
    policies = [_conditional(table) for table in tables]
    flows = [table.sum(axis=1) for table in tables]
    joint = joint_transition(game, policies)
    mean = np.mean(flows, axis=0)
    residual = np.abs(mean - (1 - game.gamma) * game.start - game.gamma * mean @ joint).sum()
    gaps = np.array([total_variation(*pair) for pair in zip(tables, _marginals(game, policies), strict=True)])
    compatible = bool(gaps.max() <= tol)
    return Compatibility(
        compatible=compatible,
        disagreement=max((total_variation(one, other) for one, other in combinations(flows, 2)), default=0.0),
        flow_residual=float(residual),
        gaps=gaps,
        lower_bound=0.0 if compatible else lower_bound(game, tables),
        policies=policies,
    )


_marginals = marginals  # the function, where an argument has its name


def _conditional(table: Array) -> Array:
    """mu(s, a) / sum_a mu(s, a), uniform where the sum is 0."""
    sums = table.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums > 0, table / sums, 1 / table.shape[1])


def lower_bound(game: Game, marginals: Sequence[ArrayLike]) -> float:
    """The least t such that some correlated joint policy is within total variation t of every agent's marginal.

    A linear program over joint occupancies x(s, a) >= 0 with the flow constraint
    sum_a x(s, a) = (1 - gamma) start(s) + gamma sum_s',a' x(s', a') T(s | s', a'). Correlated policies include the product
    policies of independent agents, so no team of independent agents does better.

    Args:
        game: The game.
        marginals: One [S, A_i] per agent.

    Returns:
        t, 0 to 1; at least half the largest total variation between two agents' state distributions.

    Raises:
        ValueError: The marginals do not fit the game.
        ImportError: SciPy is not installed.
    """
    optimize, sparse = require("scipy.optimize", "theory"), require("scipy.sparse", "theory")
    tables = check_marginals(game, marginals)
    states, size = game.num_states, game.transition[..., 0].size
    sizes = [table.size for table in tables]

    # The variables: x, then for every agent |x's marginal - mu| (one each), then t.
    incoming = game.transition.reshape(size, states).T
    outgoing = np.repeat(np.eye(states), size // states, axis=1)
    flow = sparse.hstack([outgoing - game.gamma * incoming, sparse.csr_matrix((states, sum(sizes) + 1))])
    blocks, limits = [], []
    for i, table in enumerate(tables):
        own = _own_pairs(game, i)
        for sign in (1, -1):  # sign (x's marginal - mu) <= distance
            distances = [-sparse.eye(n) if j == i else sparse.csr_matrix((sizes[i], n)) for j, n in enumerate(sizes)]
            blocks.append(sparse.hstack([sign * own, *distances, sparse.csr_matrix((sizes[i], 1))]))
            limits.append(sign * table.ravel())
        half = [sparse.csr_matrix(np.full((1, n), 0.5 if j == i else 0.0)) for j, n in enumerate(sizes)]
        blocks.append(sparse.hstack([sparse.csr_matrix((1, size)), *half, sparse.csr_matrix([[-1.0]])]))
        limits.append(np.zeros(1))
    cost = np.zeros(size + sum(sizes) + 1)
    cost[-1] = 1
    solution = optimize.linprog(
        cost,
        A_ub=sparse.vstack(blocks, format="csr"),
        b_ub=np.concatenate(limits),
        A_eq=sparse.csr_matrix(flow),
        b_eq=(1 - game.gamma) * game.start,
        method="highs",
    )
    if solution.status != 0:
        raise RuntimeError(f"the linear program of the lower bound was not solved: {solution.message}")
    return max(float(solution.fun), 0.0)


def _own_pairs(game: Game, agent: int) -> Array:
    """The matrix [S A_i, joint state-action pairs] that sums a joint occupancy over the other agents' actions."""
    size, number = game.transition[..., 0].size, game.num_actions[agent]
    indices = np.indices(game.transition.shape[:-1]).reshape(game.num_agents + 1, -1)
    rows = indices[0] * number + indices[agent + 1]
    return np.equal.outer(np.arange(game.num_states * number), rows).astype(np.float64).reshape(-1, size)
