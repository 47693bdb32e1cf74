"""Best responses and the Nash gap, against a search through all policies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dm2_wrappers import tabular
from tests.helpers.tabular_games import close, uneven


def test_best_response_and_nash_gap_against_all_policies():
    for seed in range(5):
        game, policies = uneven(seed)
        rewards = [np.random.default_rng(seed).standard_normal((4, n)) for n in game.num_actions]
        gaps = []
        for agent, number in enumerate(game.num_actions):
            values = []
            for actions in itertools.product(range(number), repeat=4):
                own = tabular.deterministic(actions, number)
                mu = slow_marginal(game, [*policies[:agent], own, *policies[agent + 1 :]], agent)
                values.append((mu * rewards[agent]).sum() / (1 - game.gamma))
            response = tabular.best_response(game, policies, agent, rewards[agent])
            close(response.value, max(values))
            again = [*policies[:agent], response.policy, *policies[agent + 1 :]]
            close(tabular.value(game, again, agent, rewards[agent]), max(values))
            gaps.append(max(values) - tabular.value(game, policies, agent, rewards[agent]))
        close(tabular.nash_gap(game, policies, rewards), max(gaps))


def test_responses_do_not_depend_on_the_size_of_rewards_or_on_others_in_the_batch():
    rng = np.random.default_rng(0)
    game = tabular.random_game(rng, num_states=3, num_actions=[2, 2])
    policies = [rng.dirichlet(np.ones(2), size=3) for _ in range(2)]
    reward = rng.random((3, 2))
    alone = tabular.best_response(game, policies, 0, reward)
    factors = [1e-12, 1.0, 1e12]
    batch = [np.stack([each] * 3) for each in policies]
    together = tabular.best_response(game, batch, 0, np.stack([factor * reward for factor in factors]))
    for n, factor in enumerate(factors):
        np.testing.assert_array_equal(together.policy[n], alone.policy)
        assert together.value[n] / factor == pytest.approx(alone.value)
    assert tabular.best_response(game, policies, 0, np.zeros((3, 2))).value == 0


def slow_marginal(game, policies, agent):
    """By power iteration of the state distribution, without the library's own averages."""
    joint = np.einsum("sabct,sa,sb,sc->st", game.transition, *policies)
    rho, now = np.zeros(game.num_states), game.start
    for t in range(150):
        rho, now = rho + (1 - game.gamma) * game.gamma**t * now, now @ joint
    return rho[:, None] * policies[agent]


def test_reward_of_own_action_is_the_mean_over_the_others():
    game, policies = uneven()
    task = np.random.default_rng(0).standard_normal((4, 2, 3, 4))
    slow = np.zeros((4, 3))
    for s, a, b, c in np.ndindex(task.shape):
        slow[s, b] += policies[0][s, a] * policies[2][s, c] * task[s, a, b, c]
    close(tabular.reward_of_own_action(game, policies, 1, task), slow)
