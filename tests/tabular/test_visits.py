"""Visitation distributions, against slow code written another way."""

from __future__ import annotations

import itertools

import numpy as np

from dm2_wrappers import tabular
from tests.helpers.tabular_games import close, slow_occupancy, uneven


def test_occupancy_is_what_walking_forward_gives():
    game, policies = uneven()
    slow = slow_occupancy(game, policies)
    close(tabular.occupancy(game, policies), slow)
    close(tabular.visitation(game, policies), slow.sum(axis=(1, 2, 3)))
    for agent, (found, others) in enumerate(zip(tabular.marginals(game, policies), ((2, 3), (1, 3), (1, 2)), strict=True)):
        assert found.shape == (4, game.num_actions[agent])
        close(found, slow.sum(axis=others))


def test_leading_axes_are_many_sets_of_policies():
    game, _ = uneven()
    rng = np.random.default_rng(5)
    many = [rng.dirichlet(np.ones(n), size=(3, 4)) for n in game.num_actions]
    expert, target = np.zeros((3, 4), int), [np.full((4, n), 0.25 / n) for n in game.num_actions]
    together = tabular.algorithm2(game, target, many, sweeps=3, tolerance=0)
    for k in range(3):
        one = [policy[k] for policy in many]
        close(tabular.visitation(game, many)[k], tabular.visitation(game, one))
        close(tabular.occupancy(game, many)[k], tabular.occupancy(game, one))
        close(np.array(tabular.objectives(game, many, expert, 0.1))[:, k], tabular.objectives(game, one, expert, 0.1))
        rewards = [np.arange(4.0 * n).reshape(4, n) for n in game.num_actions]
        close(tabular.nash_gap(game, many, rewards)[k], tabular.nash_gap(game, one, rewards))
        alone = tabular.algorithm2(game, target, one, sweeps=3, tolerance=0)
        for agent in range(3):
            close(together[0][agent][k], alone[0][agent])
        close(together[1].loss[:, k], alone[1].loss)


def joint_policies(game):
    """All deterministic joint policies."""
    each = [list(itertools.product(range(n), repeat=game.num_states)) for n in game.num_actions]
    for actions in itertools.product(*each):
        yield tabular.expert_policies(game, np.array(actions))


def test_largest_eps_is_the_least_over_all_deterministic_policies():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        game = tabular.random_game(rng, num_states=3, num_actions=(2, 3), gamma=0.9, concentration=0.3)
        least = min(tabular.visitation(game, policies).min() for policies in joint_policies(game))
        close(tabular.largest_eps(game), least)


def test_largest_eps_is_never_below_0():
    for seed in range(60):
        game = tabular.random_game(np.random.default_rng(seed), num_states=3, num_actions=(2, 2), concentration=0.1)
        transition = np.where(game.transition < 1e-3, 0, game.transition)
        game = tabular.Game(transition / transition.sum(-1, keepdims=True), [1.0, 0.0, 0.0], game.gamma)
        assert tabular.largest_eps(game) >= 0
