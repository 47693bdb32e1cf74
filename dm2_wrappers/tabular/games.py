"""Example games: the paper's four tiles (section 5.1), and the counterexamples of ``docs/theory.md``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.tabular.game import Array, Game, check_choice, deterministic, expert_policies
from dm2_wrappers.tabular.visits import marginals

# Tiles 0 1 / 2 3. A state is (tile of agent 0, tile of agent 1): two agents never share a tile.
TILE_STATES: tuple[tuple[int, int], ...] = tuple((one, two) for one in range(4) for two in range(4) if one != two)
STAY, CHANGE_COLUMN, CHANGE_ROW = 0, 1, 2
_MOVES = (0, 1, 2)  # what an action does to a tile's number, as an exclusive or

TileTargets = Literal["together", "both want tile 0", "wandering partners"]
TILE_TARGETS: tuple[TileTargets, ...] = ("together", "both want tile 0", "wandering partners")


class Tiles(NamedTuple):
    """What :func:`four_tiles` returns."""

    game: Game
    expert: NDArray[np.int64]
    """[2, S], the experts' actions."""
    marginals: list[Array]
    """Each agent's demonstrations as a state-action distribution [S, 3]."""


def four_tiles(demonstrations: TileTargets = "together", *, gamma: float = 0.9) -> Tiles:
    """The paper's grid of four tiles, where only one agent may stand on a tile at a time (section 5.1).

    Tiles 0 1 over 2 3; the 12 states are the ordered pairs of different tiles, in the order of ``TILE_STATES``. The
    actions are stay, change column and change row. If both agents would end on one tile, or exchange tiles, both stay.
    The start is uniform over the states, so that every state is visited (Condition 1, epsilon = (1 - gamma) / 12).

    Args:
        demonstrations: "together": agent 0 goes to tile 0 and agent 1 to tile 3, recorded as a team: compatible. "both
            want tile 0": each expert goes to tile 0 while its partner acts at random: not compatible. "wandering
            partners": agent 0 goes to tile 0 and agent 1 to tile 3, each recorded with a partner that acts at random.
            That is the paper's example, and it is not compatible either.
        gamma: Discount factor.

    Returns:
        (game, expert, marginals).

    Raises:
        ValueError: Unknown demonstrations, or gamma outside [0, 1).
    """
    check_choice("demonstrations", demonstrations, TILE_TARGETS)
    index = {state: number for number, state in enumerate(TILE_STATES)}
    transition = np.zeros((12, 3, 3, 12))
    for state, (one, two) in enumerate(TILE_STATES):
        for first, second in np.ndindex(3, 3):
            ends = one ^ _MOVES[first], two ^ _MOVES[second]
            blocked = ends[0] == ends[1] or ends == (two, one)
            transition[state, first, second, state if blocked else index[ends]] = 1
    game = Game(transition, np.full(12, 1 / 12), gamma)

    targets = (0, 0) if demonstrations == "both want tile 0" else (0, 3)
    expert = np.array([go_to(agent, target) for agent, target in enumerate(targets)])
    policies = expert_policies(game, expert)
    if demonstrations == "together":
        return Tiles(game, expert, marginals(game, policies))
    wander = np.full((12, 3), 1 / 3)
    alone = [marginals(game, [policies[0], wander])[0], marginals(game, [wander, policies[1]])[1]]
    return Tiles(game, expert, alone)


def go_to(agent: int, target: int) -> NDArray[np.int64]:
    """The actions [12] of an expert on the four tiles that goes to a tile and stays there.

    It changes its column first. If the other agent is on that tile, it changes its row first.
    """
    actions = []
    for state in TILE_STATES:
        own, other = state[agent], state[1 - agent]
        way = own ^ target  # bit 0: the column differs, bit 1: the row differs
        if way == 3:  # noqa: SIM108
            action = CHANGE_ROW if own ^ 1 == other else CHANGE_COLUMN
        else:
            action = way
        actions.append(action)
    return np.array(actions)


def one_agent_moves(next_states: Sequence[Sequence[int]], *, mix: float = 0.9, gamma: float = 0.9) -> Game:
    """A game of two agents with two actions each. Only agent 0's actions have an effect; the start is uniform.

    Args:
        next_states: [S, 2], the next state for each of agent 0's actions.
        mix: Probability of this next state. With the remaining probability it is drawn uniformly from all states.
        gamma: Discount factor.
    """
    moves = np.asarray(next_states)
    states = len(moves)
    alone = mix * deterministic(moves, states) + (1 - mix) / states  # [S, 2, S]
    return Game(np.repeat(alone[:, :, None], 2, axis=2), np.full(states, 1 / states), gamma)


def toggle(*, gamma: float = 0.9) -> Game:
    """Two states. Agent 0 stays (action 0) or switches (action 1), with a tenth of noise. Agent 1 has no effect.

    In this game the best response to a converged discriminator is not always the expert (`docs/theory.md`, Assumption 1).
    """
    return one_agent_moves([[0, 1], [1, 0]], gamma=gamma)


def coordination(*, gamma: float = 0.95) -> Game:
    """Three states, two agents, two actions. In state 0 equal actions lead to state 1, different ones to state 2.

    In states 1 and 2 the state stays with probability 0.9 and otherwise returns to 0. With JS discriminators and compatible
    demonstrations this game has an equilibrium that is not the expert (`docs/theory.md`, convergence).
    """
    transition = np.zeros((3, 2, 2, 3))
    for one, two in np.ndindex(2, 2):
        transition[0, one, two, 1 if one == two else 2] = 1
    for state in (1, 2):
        transition[state, :, :, state], transition[state, :, :, 0] = 0.9, 0.1
    return Game(transition, np.full(3, 1 / 3), gamma)


def random_game(
    rng: np.random.Generator,
    *,
    num_states: int,
    num_actions: Sequence[int],
    gamma: float = 0.9,
    reset: float = 0.0,
    concentration: float = 1.0,
) -> Game:
    """A game whose transitions and start are drawn from Dirichlet distributions.

    Args:
        rng: The random generator.
        num_states: S.
        num_actions: A_1, ..., A_K.
        gamma: Discount factor.
        reset: Share of a uniform reset in every transition, kappa; above 0 every state is visited (Condition 1).
        concentration: Parameter of the Dirichlet distribution. 1 is uniform, less is closer to deterministic.
    """
    draws = rng.dirichlet(np.full(num_states, concentration), size=(num_states, *num_actions))
    transition = (1 - reset) * draws + reset / num_states
    return Game(transition, rng.dirichlet(np.ones(num_states)), gamma)
