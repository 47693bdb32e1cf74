"""The paper's Condition 1, Lemmas 3, 4 and 6, Theorem 1 and Corollary 1: the three objectives and their bounds."""

from __future__ import annotations

import numpy as np
import pytest

from dm2_wrappers import tabular
from tests.helpers.tabular_games import EXPECTED, close
from tests.helpers.theory_cases import cases, matching, one_state, two_fixed_states


def test_condition_1_holds_with_largest_eps_on_every_game():
    for case in cases():
        rho = tabular.visitation(case.game, case.policies)
        assert 0 < case.eps <= rho.min() + 1e-12


def test_lemma_3_j_is_bounded():
    for case in cases():
        j = tabular.objectives(case.game, case.policies, case.expert, case.eps).J
        assert case.game.num_agents - 1 - 1e-12 <= j <= case.game.num_agents + 1e-12


def test_observation_1_l_eps_is_bounded():
    for case in cases():
        low = tabular.objectives(case.game, case.policies, case.expert, case.eps).L_eps
        assert 0 <= low <= case.eps * case.game.num_states * case.game.num_agents + 1e-12


def test_lemma_4_the_expert_alone_maximises_j_and_by_how_much():
    """K - J >= eps max (1 - p_i(s)): 0 only where every p is 1."""
    for case in cases():
        agents = case.game.num_agents
        best = tabular.objectives(case.game, case.experts, case.expert, case.eps).J
        assert best == pytest.approx(agents, abs=1e-9)
        j = tabular.objectives(case.game, case.policies, case.expert, case.eps).J
        assert agents - j >= case.eps * (1 - case.match).max() - 1e-12 > 0


def test_lemma_4_its_sharper_bound_is_attained():
    game = two_fixed_states([0.5, 0.5])
    policies = [matching([0.7, 1]), matching([1, 1])]
    j = tabular.objectives(game, policies, np.zeros((2, 2), int), 0.5).J
    assert tabular.largest_eps(game) == pytest.approx(0.5)
    assert 2 - j == pytest.approx(0.5 * (1 - 0.7), abs=1e-12)


def test_lemma_4_fails_where_the_expert_misses_a_state():
    expected = EXPECTED["L4: a state that is never visited"]
    game = two_fixed_states([1.0, 0.0])
    other = [matching([1, 0]), matching([1, 0])]
    close(tabular.visitation(game, other), expected["rho"])
    expert = np.zeros((2, 2), int)
    close(tabular.objectives(game, tabular.expert_policies(game, expert), expert, 0).J, expected["J_expert"])
    close(tabular.objectives(game, other, expert, 0).J, expected["J_other"])


def test_lemma_4_needs_full_support_of_the_experts_visitation_only():
    """A policy with J = K copies the experts wherever it goes, hence goes where they go: everywhere."""
    transition = np.zeros((2, 2, 2, 2))
    transition[0, 0, :, 1] = transition[0, 1, :, 0] = transition[1, ..., 1] = 1
    game, expert = tabular.Game(transition, [1, 0], 0.9), np.zeros((2, 2), int)
    assert tabular.largest_eps(game) == 0  # agent 0 can stay in state 0: Condition 1 fails
    assert tabular.visitation(game, tabular.expert_policies(game, expert)).min() > 0.09
    for actions in np.ndindex(2, 2, 2, 2):
        policies = tabular.expert_policies(game, np.reshape(actions, (2, 2)))
        assert (tabular.objectives(game, policies, expert, 0).J > 2 - 1e-9) == (not any(actions))


def test_footnote_3_is_false_a_stochastic_expert_does_not_maximise_j():
    expected = EXPECTED["footnote 3: stochastic expert (.6,.4) each, one state"]
    game, p = one_state((2, 2)), np.array([0.6, 0.4])

    def expectation(policies):  # over the experts' actions, as the footnote says
        pairs = [(a, b, p[a] * p[b]) for a in (0, 1) for b in (0, 1)]
        values = [tabular.objectives(game, policies, [[a], [b]], 0) for a, b, _ in pairs]
        return [sum(w * getattr(v, name) for v, (*_, w) in zip(values, pairs, strict=True)) for name in ("J", "L")]

    close(expectation([p[None], p[None]]), [expected["J_expert"], expected["L_expert"]])
    mode = np.array([[1.0, 0.0]])
    close(expectation([mode, mode]), [expected["J_mode"], expected["L_mode"]])
    assert expected["J_mode"] > expected["J_expert"]


def test_theorem_1_l_is_a_lower_bound_of_j():
    for case in cases():
        found = tabular.objectives(case.game, case.policies, case.expert, case.eps)
        rho, match = tabular.visitation(case.game, case.policies), case.match
        slack = rho @ (case.game.num_agents - 1 + match.prod(axis=0) - match.sum(axis=0))
        assert abs((found.J - found.L) - slack) < 1e-12
        assert slack >= -1e-12


def test_corollary_1_l_eps_is_a_lower_bound_of_l():
    for case in cases():
        found = tabular.objectives(case.game, case.policies, case.expert, case.eps)
        assert found.L - found.L_eps > -1e-12


def test_corollary_1_is_not_strict():
    expected = EXPECTED["C1: uniform visitation, eps=1/2"]
    game = two_fixed_states([0.5, 0.5])
    policies = [matching([0.5, 0.7]), matching([0.6, 0.0])]
    close(tabular.visitation(game, policies), expected["d"])
    found = tabular.objectives(game, policies, np.zeros((2, 2), int), tabular.largest_eps(game))
    close(found, [expected["J"], expected["L"], expected["L_eps"]])

    expected = EXPECTED["C1: no agent ever matches (any eps)"]
    basic = EXPECTED["G1 basic 2x2x2"]
    game = tabular.Game(basic["T"], basic["start"], basic["gamma"])
    never = tabular.expert_policies(game, 1 - np.array(basic["expert"]))
    close(tabular.visitation(game, never), expected["rho"])
    close(tabular.objectives(game, never, basic["expert"], 0.1)[1:], [expected["L"], expected["L_eps"]])


def test_corollary_1_is_often_vacuous():
    """L_eps <= eps |S| K, and L >= K - 1 is easily had: where eps |S| K <= K - 1 the bound says less than Lemma 3."""
    vacuous = [c.eps * c.game.num_states * c.game.num_agents <= c.game.num_agents - 1 for c in cases()]
    print(f"eps |S| K <= K - 1 in {sum(vacuous)} of 1,000 games")
    assert sum(vacuous) > 800


def test_lemma_6_the_expert_alone_maximises_l_eps_for_a_constant_epsilon():
    for case in cases():
        top = case.eps * case.game.num_states * case.game.num_agents
        best = tabular.objectives(case.game, case.experts, case.expert, case.eps).L_eps
        assert best == pytest.approx(top, abs=1e-12)
        other = tabular.objectives(case.game, case.policies, case.expert, case.eps).L_eps
        assert top - other == pytest.approx(case.eps * (1 - case.match).sum(), abs=1e-12)


def test_lemma_6_is_false_if_epsilon_is_the_current_policys():
    game = tabular.one_agent_moves([[0, 1], [0, 1]])
    expert = np.zeros((2, 2), int)
    wanderers = [matching([0.5, 0.5]), matching([1, 1])]
    values = []
    for policies in (tabular.expert_policies(game, expert), wanderers):
        eps = tabular.visitation(game, policies).min()
        values.append(float(tabular.objectives(game, policies, expert, eps).L_eps))
    close(values, [0.095 * 4, 0.5 * 3])
