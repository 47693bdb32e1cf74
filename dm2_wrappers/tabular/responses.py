"""One agent's problem while the others stay: values, best responses and the Nash gap (section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dm2_wrappers.tabular.game import Array, Game, check_agent, check_policies, check_tables, deterministic
from dm2_wrappers.tabular.visits import average, joint_transition

_TIE = 1e-11  # of the largest reward or value: a smaller gain is rounding


class Response(NamedTuple):
    """What :func:`best_response` returns."""

    policy: Array
    """[..., S, A_i], deterministic."""
    value: Array
    """[...], its return from the start distribution."""


def agent_problem(
    game: Game, policies: Sequence[ArrayLike], agent: int, reward: ArrayLike
) -> tuple[Array, list[Array], Array]:
    """The agent's own transition [..., S, A_i, S], the policies and its reward, all checked."""
    check_agent(game, agent)
    tables, table = check_policies(game, policies), np.asarray(reward, dtype=np.float64)
    shape = (game.num_states, game.num_actions[agent])
    if table.shape[-2:] != shape:
        raise ValueError(
            f"the reward of agent {agent} must have the shape {list(shape)}: states by its actions, but it is "
            f"{list(table.shape)}"
        )
    return joint_transition(game, tables, keep=agent), tables, table


def state_values(game: Game, own: Array, policy: Array, reward: Array) -> Array:
    """V [..., S] of an agent's policy [..., S, A] in its own problem [..., S, A, S] with the reward r(s, a)."""
    joint = np.einsum("...sat,...sa->...st", own, policy)
    paid = (policy * reward).sum(axis=-1)
    return np.linalg.solve(np.eye(game.num_states) - game.gamma * joint, paid[..., None])[..., 0]


def action_values(game: Game, own: Array, values: Array, reward: Array) -> Array:
    """Q [..., S, A] = r(s, a) + gamma E[V(s')]."""
    return reward + game.gamma * np.einsum("...sat,...t->...sa", own, values)


def value(game: Game, policies: Sequence[ArrayLike], agent: int, reward: ArrayLike) -> Array:
    """An agent's return E[sum_t gamma^t r(s_t, a_t)] from the start distribution (V of equation 1, not normalized).

    Args:
        game: The game.
        policies: One [S, A_i] per agent; leading axes hold many sets of policies.
        agent: Whose return.
        reward: [..., S, A_i], its reward.

    Returns:
        float64 [...].

    Raises:
        ValueError: The policies or the reward do not fit the game, or there is no such agent.
    """
    own, tables, table = agent_problem(game, policies, agent, reward)
    return (state_values(game, own, tables[agent], table) @ game.start)[()]


def best_response(game: Game, policies: Sequence[ArrayLike], agent: int, reward: ArrayLike) -> Response:
    """A best policy of one agent while the others keep theirs, by policy iteration (section 3).

    The search starts at the agent's most likely actions and changes an action only for a gain that is more than rounding.

    Args:
        game: The game.
        policies: One [S, A_i] per agent; leading axes hold many sets of policies.
        agent: Who responds.
        reward: [..., S, A_i], its reward.

    Returns:
        (policy, value), the value from the start distribution, not normalized by 1 - gamma.

    Raises:
        ValueError: The policies or the reward do not fit the game, or there is no such agent.
    """
    own, tables, table = agent_problem(game, policies, agent, reward)
    number = game.num_actions[agent]
    shape = np.broadcast_shapes(tables[agent].shape, table.shape)
    chosen = np.broadcast_to(tables[agent], shape).argmax(axis=-1)
    largest = np.abs(np.broadcast_to(table, shape)).max(axis=(-2, -1))  # of each set of policies
    while True:
        policy = deterministic(chosen, number)
        values = state_values(game, own, policy, table)
        options = action_values(game, own, values, table)
        gain = options.max(axis=-1) - np.take_along_axis(options, chosen[..., None], -1)[..., 0]
        better = gain > _TIE * np.maximum(largest, np.abs(values).max(axis=-1))[..., None]
        if not better.any():
            return Response(policy, (values @ game.start)[()])
        chosen = np.where(better, options.argmax(axis=-1), chosen)


def nash_gap(game: Game, policies: Sequence[ArrayLike], rewards: Sequence[ArrayLike]) -> Array:
    """The most that any agent gains by changing its own policy: 0 at a Nash equilibrium (section 3).

    Args:
        game: The game.
        policies: One [S, A_i] per agent; leading axes hold many sets of policies.
        rewards: One [..., S, A_i] per agent: a reward of its own actions, such as a discriminator's. For a reward of the
            joint action pass :func:`reward_of_own_action`.

    Returns:
        float64 [...], a return (not normalized by 1 - gamma); 0 up to rounding at an equilibrium.

    Raises:
        ValueError: The policies or the rewards do not fit the game.
    """
    tables = check_tables(game, rewards, "rewards")
    gains = [
        best_response(game, policies, i, table).value - value(game, policies, i, table) for i, table in enumerate(tables)
    ]
    return np.max(gains, axis=0)[()]


def reward_of_own_action(game: Game, policies: Sequence[ArrayLike], agent: int, reward: ArrayLike) -> Array:
    """A reward of the joint action as one agent meets it: the mean over the others' actions.

    Args:
        game: The game.
        policies: One [S, A_i] per agent, without leading axes.
        agent: Whose actions stay.
        reward: [S, A_1, ..., A_K], such as a task's reward R_T.

    Returns:
        float64 [S, A_i].

    Raises:
        ValueError: The policies or the reward do not fit the game, or there is no such agent.
    """
    check_agent(game, agent)
    tables, table = check_policies(game, policies), np.asarray(reward, dtype=np.float64)
    if table.shape != game.transition.shape[:-1]:
        raise ValueError(
            f"a reward of the joint action must have the shape {list(game.transition.shape[:-1])}: states by every agent's "
            f"actions, but it is {list(table.shape)}"
        )
    return average(table, tables, keep=agent)
