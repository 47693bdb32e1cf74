"""The paper's Lemma 5 and Assumption 1: what discriminators pay; and demonstrations of states alone."""

from __future__ import annotations

import numpy as np
import pytest

from dm2_wrappers import tabular
from tests.helpers.tabular_games import EXPECTED, close
from tests.helpers.theory_cases import PI_0, cases, indicator, stay, toggle_reward

# --- Lemma 5 ----------------------------------------------------------------------------------------------------------


def test_lemma_5_holds_with_the_discriminator_held_fixed():
    """Loss before - loss after = value after - value before: the expert's value and psi do not change."""
    for case in cases():
        game, agent = case.game, case.game.num_agents - 1
        experts, own = tabular.marginals(game, case.experts)[agent], tabular.marginals(game, case.policies)[agent]
        reward = tabular.discriminator_reward(own, experts, "linear", gamma=game.gamma)
        expert_value, psi = (experts * reward).sum() / (1 - game.gamma), (reward**2).sum() / 2
        new = tabular.trpo_step(game, case.policies, agent, reward)
        after = [*case.policies[:agent], new]
        values = [tabular.value(game, policies, agent, reward) for policies in (case.policies, after)]
        losses = [expert_value - value - psi for value in values]
        assert tabular.discriminator_loss(own, experts, "linear", gamma=game.gamma) == pytest.approx(losses[0], abs=1e-9)
        moved = (tabular.marginals(game, after)[agent] * reward).sum() / (1 - game.gamma)
        assert values[1] == pytest.approx(moved, abs=1e-9)
        assert losses[0] - losses[1] == pytest.approx(values[1] - values[0], abs=1e-9)


def test_lemma_5_is_false_after_the_discriminator_is_optimised_again():
    expected = EXPECTED["overshoot js"]
    game = tabular.one_agent_moves(np.reshape(expected["next_state_of_s0a0_s0a1_s1a0_s1a1"], (2, 2)))
    before, experts = [np.array(expected["pi0"]), stay()], [stay(), stay()]
    own, target = tabular.marginals(game, before)[0], tabular.marginals(game, experts)[0]
    reward = tabular.discriminator_reward(own, target, "js")
    response = tabular.best_response(game, before, 0, reward)
    assert response.policy.argmax(axis=1).tolist() == expected["best_response"]
    after = tabular.marginals(game, [response.policy, stay()])[0]
    close(tabular.value(game, before, 0, reward), expected["V_before"])
    close(response.value, expected["V_after"])
    close(tabular.discriminator_loss(own, target), expected["loss_before"])
    close(tabular.discriminator_loss(after, target), expected["loss_after"])


def test_lemma_5_is_false_for_the_linear_discriminator_too():
    game, reward = tabular.toggle(), toggle_reward("linear")
    target = tabular.marginals(game, [stay(), stay()])[0]
    response = tabular.best_response(game, [PI_0, stay()], 0, reward)
    assert response.value > 42 > 0 > tabular.value(game, [PI_0, stay()], 0, reward)
    before, after = (tabular.marginals(game, [policy, stay()])[0] for policy in (PI_0, response.policy))
    losses = [tabular.discriminator_loss(own, target, "linear", gamma=0.9) for own in (before, after)]
    assert losses == pytest.approx([16.148032, 21.1525])


# --- Assumption 1 -----------------------------------------------------------------------------------------------------


TOGGLE = EXPECTED["toggle: best response to r_opt is not the expert"]


@pytest.mark.parametrize("kind", ["linear", "js", "logit_clip5"])
def test_assumption_1_does_not_follow_from_a_converged_discriminator(kind):
    game, expected = tabular.toggle(), TOGGLE[kind]
    close(tabular.visitation(game, [PI_0, stay()]), TOGGLE["rho_pi"])
    close(tabular.visitation(game, [stay(), stay()]), TOGGLE["rho_E"])
    reward = toggle_reward(kind)
    close(reward, expected["r"])
    close(tabular.value(game, [stay(), stay()], 0, reward), expected["V_expert"])
    response = tabular.best_response(game, [PI_0, stay()], 0, reward)
    assert response.policy.argmax(axis=1).tolist() == expected["best_response"] != [0, 0]
    close(response.value, expected["V_best"])


def test_assumption_1_may_be_weakened_to_a_factor_of_1_over_gamma():
    """Rewards c(s) 1[a = a^E] with c_max / c_min < 1 / gamma': the expert is still the best response to anyone."""
    rng = np.random.default_rng(1)
    for case in cases():
        game, agent = case.game, int(rng.integers(case.game.num_agents))
        most = 1 / (game.gamma * (1 - case.reset))  # a share of every transition is the same for all actions
        scale = rng.choice([1.0, most * (1 - 1e-6)], size=(game.num_states, 1))
        response = tabular.best_response(game, case.policies, agent, scale * indicator(game, case.expert, agent))
        assert np.array_equal(response.policy, case.experts[agent])


@pytest.mark.parametrize("c", [1.1, 1 / 0.9, 1.2])
def test_assumption_1_the_factor_is_tight(c):
    expected = EXPECTED["Assumption 1 within a factor 1/gamma (tight)"][f"C={c:.6f}"]
    game = tabular.one_agent_moves([[2, 1], [1, 1], [2, 2]], mix=1.0)
    expert = tabular.deterministic([0, 0, 0], 2)
    reward = np.array([[1.0], [c], [1.0]]) * expert
    response = tabular.best_response(game, [expert, expert], 0, reward)  # at c = 1 / gamma a tie: it stays the expert
    assert response.policy.argmax(axis=1).tolist() == expected["best_response"]
    close(response.value, expected["V_best"])
    close(tabular.value(game, [expert] * 2, 0, reward), expected["V_expert"])


# --- section 5 --------------------------------------------------------------------------------------------------------


def test_demonstrations_of_states_alone_do_not_identify_the_expert():
    expected = EXPECTED["state-only demonstrations do not identify the expert"]
    game, expert = tabular.coordination(), np.zeros((2, 3), int)
    other = tabular.expert_policies(game, [[1, 0, 0], [1, 0, 0]])
    experts = tabular.expert_policies(game, expert)
    states = [tabular.visitation(game, policies) for policies in (other, experts)]
    close(tabular.total_variation(*states), expected["tv_of_states"])
    close(tabular.objectives(game, other, expert, 0)[:2], [expected["J"], expected["L"]])
    joint = tabular.total_variation(tabular.occupancy(game, other), tabular.occupancy(game, experts))
    close(joint, expected["joint_tv"])
