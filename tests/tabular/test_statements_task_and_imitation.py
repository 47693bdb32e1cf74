"""The paper's section 4.2: equilibria of the task's reward, of the imitation reward, and of their mix."""

from __future__ import annotations

import numpy as np
import pytest

from dm2_wrappers import tabular
from tests.helpers.tabular_games import EXPECTED, close
from tests.helpers.theory_cases import cases, one_state, stay, toggle_reward


def best_joint_policy(game, reward):
    """A deterministic joint policy [K, S] that maximises a team reward: a Nash equilibrium for it. Value iteration."""
    shape = game.transition.shape[1:-1]
    transition, paid = game.transition.reshape(game.num_states, -1, game.num_states), reward.reshape(len(reward), -1)
    chosen = np.zeros(game.num_states, int)
    states = np.arange(game.num_states)
    while True:
        step = np.eye(game.num_states) - game.gamma * transition[states, chosen]
        values = paid + game.gamma * transition @ np.linalg.solve(step, paid[states, chosen])
        if (values.max(axis=1) <= values[states, chosen] + 1e-10).all():
            return np.array(np.unravel_index(chosen, shape))
        chosen = values.argmax(axis=1)


def expert_rewards(case, kind, against):
    pairs = zip(tabular.marginals(case.game, against), tabular.marginals(case.game, case.experts), strict=True)
    return [tabular.discriminator_reward(own, target, kind, gamma=case.game.gamma) for own, target in pairs]


@pytest.mark.parametrize("kind", ["indicator", "js", "logit", "linear"])
def test_theorem_2_holds_for_discriminators_against_the_expert(kind):
    """The mix keeps the experts' equilibrium for the indicator, and for every r_opt at pi = pi_E."""
    rng = np.random.default_rng(3)
    for case in cases():
        task = rng.standard_normal(case.game.transition.shape[:-1])
        case = case._replace(expert=best_joint_policy(case.game, task))
        alpha, beta = rng.uniform(0.1, 2, size=2)
        mixed = [
            alpha * tabular.reward_of_own_action(case.game, case.experts, agent, task) + beta * imitation
            for agent, imitation in enumerate(expert_rewards(case, kind, case.experts))
        ]
        assert tabular.nash_gap(case.game, case.experts, mixed) < 1e-7


@pytest.mark.parametrize(("kind", "least"), [("linear", 300), ("js", 150), ("logit", 3)])
def test_theorem_2_fails_for_discriminators_against_another_policy(kind, least):
    """With R_T = 0 every policy is an equilibrium for the task; with r_opt of another policy the experts are none."""
    gaps = [tabular.nash_gap(c.game, c.experts, expert_rewards(c, kind, c.policies)) for c in cases()]
    broken = int(np.sum(np.array(gaps) > 1e-6))
    print(f"the experts are no equilibrium for {kind} in {broken} of 1,000 games")
    assert least <= broken < 1000


@pytest.mark.parametrize("kind", ["linear", "js", "logit_clip5"])
def test_theorem_2_counterexample(kind):
    expected = EXPECTED["theorem 2 with r_opt of another policy"]["nash_gap"][kind]
    close(tabular.nash_gap(tabular.toggle(), [stay(), stay()], [toggle_reward(kind), np.zeros((2, 2))]), expected)


def test_an_equilibrium_of_the_mix_need_not_be_one_of_the_task():
    expected = EXPECTED["theorem 2 literals"]
    game, task = one_state((2, 2, 2)), np.zeros((1, 2, 2, 2))
    task[0, 0, 0, 0], task[0, 0, 1, 1], task[0, 1, 1, 1] = 0.5, 1, 1.05
    for name, actions in (("pi_E=(0,0,0)", (0, 0, 0)), ("(0,1,1)", (0, 1, 1))):
        policies = [tabular.deterministic([action], 2) for action in actions]
        own = [tabular.reward_of_own_action(game, policies, agent, task) for agent in range(3)]
        mix = [reward + 0.1 * tabular.deterministic([0], 2) for reward in own]
        close(tabular.nash_gap(game, policies, own), expected[name]["gap_R_T"])
        close(tabular.nash_gap(game, policies, mix), expected[name]["gap_mix"])
