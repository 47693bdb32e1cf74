"""The paper's theory on finite games, computed to machine precision with NumPy, without samples and networks.

A :class:`Game` has transitions, a start distribution and a discount factor. A joint policy is a list of arrays [S, A_i],
one for each agent. This package computes visitation distributions, the paper's objectives J, L and L_epsilon, converged
discriminators, best responses and Algorithm 2. ``docs/theory.md`` says which statements of the paper hold on such games.

Policies may have leading axes: with [N, S, A_i], N sets of policies are computed at once.
"""

from dm2_wrappers.tabular.game import Game, deterministic, expert_policies
from dm2_wrappers.tabular.games import (
    TILE_STATES,
    TILE_TARGETS,
    Tiles,
    coordination,
    four_tiles,
    go_to,
    one_agent_moves,
    random_game,
    toggle,
)
from dm2_wrappers.tabular.learning import History, algorithm2, trpo_step
from dm2_wrappers.tabular.objectives import Objectives, match_probabilities, objectives
from dm2_wrappers.tabular.responses import Response, best_response, nash_gap, reward_of_own_action, value
from dm2_wrappers.tabular.rewards import discriminator_loss, discriminator_reward
from dm2_wrappers.tabular.visits import largest_eps, marginals, occupancy, total_variation, visitation

__all__ = [
    "TILE_STATES",
    "TILE_TARGETS",
    "Game",
    "History",
    "Objectives",
    "Response",
    "TabularParallelEnv",
    "Tiles",
    "algorithm2",
    "best_response",
    "coordination",
    "deterministic",
    "discriminator_loss",
    "discriminator_reward",
    "expert_policies",
    "four_tiles",
    "go_to",
    "largest_eps",
    "marginals",
    "match_probabilities",
    "nash_gap",
    "objectives",
    "occupancy",
    "one_agent_moves",
    "random_game",
    "reward_of_own_action",
    "toggle",
    "total_variation",
    "trpo_step",
    "value",
    "visitation",
]


def __getattr__(name: str) -> object:
    if name == "TabularParallelEnv":  # on first use: PettingZoo takes a second to import
        from dm2_wrappers.tabular.env import TabularParallelEnv

        return TabularParallelEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
