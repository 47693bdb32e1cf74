"""The paper's Corollary 2 and what leads to it: when agents that learn in turn reach the expert."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dm2_wrappers import tabular
from tests.helpers.tabular_games import EXPECTED, close
from tests.helpers.theory_cases import Case, cases, indicator, matching, two_fixed_states


def test_corollary_2_amended_a_small_value_gap_bounds_the_mismatch():
    """With gap eta = V(pi_E) - V(pi) (normalised, c = 1): eps sum_s p_i(s) >= eps |S| - eta, and V(pi_E) = 1."""
    for case in cases():
        game = case.game
        for agent in range(game.num_agents):
            reward = indicator(game, case.expert, agent)
            eta = 1 - (1 - game.gamma) * tabular.value(game, case.policies, agent, reward)
            assert case.eps * case.match[agent].sum() >= case.eps * game.num_states - eta - 1e-12
            at_expert = [*case.policies[:agent], case.experts[agent], *case.policies[agent + 1 :]]
            assert (1 - game.gamma) * tabular.value(game, at_expert, agent, reward) == pytest.approx(1, abs=1e-9)


def test_corollary_2_amended_one_sweep_to_gap_eta_bounds_j():
    """J >= K - K eta / eps after one sweep in which each agent reaches value gap eta, in any order."""
    rng = np.random.default_rng(2)
    for case in cases():
        game, eta = case.game, 0.2 * case.eps
        current = list(case.policies)
        for agent in rng.permutation(game.num_agents):
            reward = indicator(game, case.expert, agent)
            start, share = current[agent], 0.0
            while 1 - (1 - game.gamma) * tabular.value(game, current, agent, reward) > eta:
                share = (1 + share) / 2
                current[agent] = share * case.experts[agent] + (1 - share) * start
        j = tabular.objectives(game, current, case.expert, case.eps).J
        assert j >= game.num_agents * (1 - eta / case.eps) - 1e-9


def steps_under_assumption_1(games):
    """(change of L_eps, change of J) of one TRPO step of each agent in each game."""
    changes = []
    for case in games:
        for agent in range(case.game.num_agents):
            new = tabular.trpo_step(case.game, case.policies, agent, indicator(case.game, case.expert, agent))
            after = [*case.policies[:agent], new, *case.policies[agent + 1 :]]
            one, other = (tabular.objectives(case.game, p, case.expert, case.eps) for p in (case.policies, after))
            changes.append((other.L_eps - one.L_eps, other.J - one.J))
    return np.array(changes)


def test_l_eps_and_j_may_fall_in_a_trpo_step_under_assumption_1():
    """They rise in most steps, not in all. Here gamma is high and transitions and policies nearly deterministic."""
    rng, games = np.random.default_rng(7), []
    for _ in range(1000):
        agents, states = int(rng.integers(2, 5)), int(rng.integers(2, 7))
        options = {"gamma": rng.uniform(0.9, 0.97), "reset": 0.02, "concentration": 0.05}
        game = tabular.random_game(rng, num_states=states, num_actions=rng.integers(2, 5, size=agents).tolist(), **options)
        expert = np.array([rng.integers(number, size=states) for number in game.num_actions])
        policies = [rng.dirichlet(np.full(number, 0.1), size=states) for number in game.num_actions]
        games.append(Case(game, expert, policies, 0.01, 0.02))
    steps = steps_under_assumption_1(games)
    print(
        f"L_eps fell in {(steps < -1e-9).sum(axis=0)[0]}, J in {(steps < -1e-9).sum(axis=0)[1]} of {len(steps)} TRPO steps"
    )
    fell = (steps < -1e-9).mean(axis=0)
    assert 0 < fell[0] < 0.03  # L_eps
    assert 0 < fell[1] < 0.2  # J


def test_l_eps_rises_in_every_trpo_step_where_gamma_is_below_a_half():
    """gamma' < 1/2: no future makes up for a missed match, so the expert's action has the highest advantage."""
    slow = []
    for case in cases():
        game = tabular.Game(case.game.transition, case.game.start, 0.499 / (1 - case.reset))
        slow.append(case._replace(game=game))
    changes = steps_under_assumption_1(slow)
    assert changes[:, 0].min() > -1e-12


def test_own_value_may_rise_while_l_eps_falls():
    expected = EXPECTED["V_0 up, L_eps down (gamma irrelevant)"]
    game = two_fixed_states([0.9, 0.1])
    partner, expert = matching([0.5, 0.5]), np.zeros((2, 2), int)
    for name, own in (("before", [0.5, 0.9]), ("after", [0.6, 0.4])):
        check_exact(game, [matching(own), partner], expert, 0.1, expected[name])
    assert Fraction(expected["after"]["V"][0]) > Fraction(expected["before"]["V"][0])


def test_a_best_response_may_raise_l_eps_and_lower_j_and_l():
    expected = EXPECTED["agent 0 best response: L_eps up, J and L down (2 states)"]
    game, expert = tabular.toggle(), np.zeros((2, 2), int)
    eps = tabular.largest_eps(game)
    close(eps, expected["largest_eps"])
    partner = matching([0, 1])
    before = [matching([0.5, 1]), partner]
    response = tabular.best_response(game, before, 0, indicator(game, expert, 0))
    for name, policies in (("before", before), ("after", [response.policy, partner])):
        check_exact(game, policies, expert, eps, expected[name])
        check_exact(game, policies, expert, eps, expected[f"{name}_exact"])


def check_exact(game, policies, expert, eps, expected):
    numbers = {key: np.vectorize(lambda x: float(Fraction(x)))(value) for key, value in expected.items()}
    close(tabular.visitation(game, policies), numbers["d"])
    close(tabular.objectives(game, policies, expert, eps), [numbers["J"], numbers["L"], numbers["L_eps"]])
    values = [(1 - game.gamma) * tabular.value(game, policies, i, indicator(game, expert, i)) for i in range(2)]
    close(values, numbers["V"])


def test_under_assumption_1_best_responses_reach_the_expert_in_one_sweep():
    for case in cases():
        current = list(case.policies)
        for agent in range(case.game.num_agents):
            reward = indicator(case.game, case.expert, agent)
            current[agent] = tabular.best_response(case.game, current, agent, reward).policy
        assert all(np.array_equal(*pair) for pair in zip(current, case.experts, strict=True))


def test_under_assumption_1_trpo_converges_to_the_expert():
    for case in cases()[:100]:
        experts = tabular.marginals(case.game, case.experts)
        options = {"reward": "indicator", "delta": 0.1, "sweeps": 500, "tolerance": 1e-3}
        last, _ = tabular.algorithm2(case.game, experts, case.policies, **options)
        target, found = tabular.occupancy(case.game, case.experts), tabular.occupancy(case.game, last)
        assert tabular.total_variation(found, target) < 0.01


SPURIOUS = EXPECTED["spurious equilibrium (JS)"]


def spurious(q):
    return [np.array([[q, 1 - q], [1, 0], [1, 0]])] * 2


def test_gail_with_compatible_demonstrations_has_a_spurious_equilibrium():
    game, policies = tabular.coordination(), [np.array(policy) for policy in SPURIOUS["policies"]]
    expert = np.zeros((2, 3), int)
    experts = tabular.expert_policies(game, expert)
    own, target = tabular.marginals(game, policies), tabular.marginals(game, experts)
    rewards = [tabular.discriminator_reward(*pair) for pair in zip(own, target, strict=True)]
    close(policies, spurious(SPURIOUS["q_stable"]))
    close(tabular.nash_gap(game, policies, rewards), SPURIOUS["nash_gap"])
    close(tabular.visitation(game, policies), SPURIOUS["rho"])
    close(tabular.visitation(game, experts), SPURIOUS["rho_E"])
    close(tabular.discriminator_loss(own[0], target[0]), SPURIOUS["js_per_agent"])
    close(tabular.total_variation(own[0], target[0]), SPURIOUS["tv_per_agent"])
    alone = tabular.marginals(game, [experts[0], policies[1]])[0]
    close(tabular.discriminator_loss(alone, target[0]), SPURIOUS["js_if_agent0_plays_expert"])
    joint = tabular.total_variation(tabular.occupancy(game, policies), tabular.occupancy(game, experts))
    close(joint, SPURIOUS["joint_tv"])
    eps = tabular.largest_eps(game)
    close(eps, SPURIOUS["largest_eps"])
    close(tabular.objectives(game, policies, expert, eps)[:2], [SPURIOUS["J"], SPURIOUS["L"]])
    for agent in range(2):
        response = tabular.best_response(game, policies, agent, indicator(game, expert, agent))
        assert response.policy.argmax(axis=1).tolist() == SPURIOUS["indicator_best_response"][agent]


def test_the_spurious_equilibrium_has_an_unstable_twin():
    """Between the two, algorithm 2 goes to the spurious one; beyond the unstable one to the expert."""
    game = tabular.coordination()
    experts = tabular.expert_policies(game, np.zeros((2, 3), int))
    target = tabular.marginals(game, experts)
    unstable = spurious(SPURIOUS["q_unstable"])
    rewards = [tabular.discriminator_reward(*pair) for pair in zip(tabular.marginals(game, unstable), target, strict=True)]
    close(tabular.nash_gap(game, unstable, rewards), 0)
    ends = []
    for q in (SPURIOUS["q_unstable"] - 0.03, SPURIOUS["q_unstable"] + 0.03):
        start = [0.999 * policy + 0.0005 for policy in spurious(q)]
        last, _ = tabular.algorithm2(game, target, start, sweeps=300)
        ends.append(tabular.total_variation(tabular.occupancy(game, last), tabular.occupancy(game, experts)))
    assert ends[0] == pytest.approx(SPURIOUS["joint_tv"], abs=0.01)
    assert ends[1] < 0.001
