"""The functions of `dm2_wrappers.tabular`, against literal values and against slow code written another way."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

import dm2_wrappers as dm2
from dm2_wrappers import compatibility, tabular
from dm2_wrappers.tabular.responses import action_values, state_values

EXPECTED = json.loads((Path(__file__).parents[1] / "data" / "theory_expected.json").read_text())
BASIC = EXPECTED["G1 basic 2x2x2"]
TILES = EXPECTED["four tiles"]


def close(found, expected, atol=1e-9):
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), rtol=0, atol=atol)


def basic():
    return tabular.Game(BASIC["T"], BASIC["start"], BASIC["gamma"])


def uneven(seed=0, gamma=0.8):
    """Three agents with 2, 3 and 4 actions, and a policy of each."""
    rng = np.random.default_rng(seed)
    game = tabular.random_game(rng, num_states=4, num_actions=(2, 3, 4), gamma=gamma, reset=0.1)
    return game, [rng.dirichlet(np.ones(number), size=4) for number in game.num_actions]


def slow_occupancy(game, policies, horizon=400):
    """rho(s, a) by walking forward in time, one joint action after the other."""
    rho, now = np.zeros(game.transition.shape[:-1]), game.start.copy()
    for t in range(horizon):
        after = np.zeros(game.num_states)
        for index in np.ndindex(rho.shape):
            state, *actions = index
            chance = now[state]
            for policy, action in zip(policies, actions, strict=True):
                chance *= policy[state, action]
            rho[index] += (1 - game.gamma) * game.gamma**t * chance
            after += chance * game.transition[index]
        now = after
    return rho


# --- visitation and objectives ----------------------------------------------------------------------------------------


def test_basic_game_has_the_literal_numbers():
    game, policies, expert = basic(), BASIC["policies"], BASIC["expert"]
    close(tabular.visitation(game, policies), BASIC["rho_s"])
    close(tabular.occupancy(game, policies), BASIC["rho_joint"])
    close(np.array(tabular.marginals(game, policies)), BASIC["rho_marginals"])
    close(tabular.largest_eps(game), BASIC["largest_eps"])
    found = tabular.objectives(game, policies, expert, BASIC["eps"])
    close(found, [BASIC["J"], BASIC["L"], BASIC["L_eps"]])
    close(found, [float(Fraction(BASIC["exact"][name])) for name in ("J", "L", "L_eps")])
    close(tabular.visitation(game, policies), [float(Fraction(x)) for x in BASIC["exact"]["d"]])
    experts = tabular.expert_policies(game, expert)
    close(tabular.visitation(game, experts), BASIC["expert_rho_s"])
    found = tabular.objectives(game, experts, expert, BASIC["eps"])
    close(found, [BASIC["expert_J"], BASIC["expert_L"], BASIC["expert_L_eps"]])
    close(found, [float(Fraction(BASIC["expert_exact"][name])) for name in ("J", "L", "L_eps")])
    for who, exact in ((policies, BASIC["exact"]), (experts, BASIC["expert_exact"])):
        values = [tabular.value(game, who, i, tabular.deterministic(expert[i], 2)) for i in range(2)]
        close(np.array(values) * (1 - game.gamma), [float(Fraction(x)) for x in exact["V"]])
    close([float(Fraction(x)) for x in BASIC["exact"]["V"]], BASIC["V_indicator_normalised"])
    close([float(Fraction(x)) for x in BASIC["expert_exact"]["d"]], BASIC["expert_rho_s"])


def test_occupancy_is_what_walking_forward_gives():
    game, policies = uneven()
    slow = slow_occupancy(game, policies)
    close(tabular.occupancy(game, policies), slow)
    close(tabular.visitation(game, policies), slow.sum(axis=(1, 2, 3)))
    for agent, (found, others) in enumerate(zip(tabular.marginals(game, policies), ((2, 3), (1, 3), (1, 2)), strict=True)):
        assert found.shape == (4, game.num_actions[agent])
        close(found, slow.sum(axis=others))


def test_objectives_are_the_sums_of_the_paper():
    game, policies = uneven()
    expert = np.array([[0, 1, 1, 0], [2, 0, 1, 2], [3, 3, 0, 1]])
    rho = slow_occupancy(game, policies)
    j = low = low_eps = 0.0
    for state, *actions in np.ndindex(rho.shape):
        matches = [action == expert[i, state] for i, action in enumerate(actions)]
        j += rho[(state, *actions)] * (2 + all(matches))
        low += rho[(state, *actions)] * sum(matches)
    low_eps = 0.01 * sum(policies[i][s, expert[i, s]] for i in range(3) for s in range(4))
    close(tabular.objectives(game, policies, expert, 0.01), [j, low, low_eps])


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


# --- discriminators ---------------------------------------------------------------------------------------------------


def basic_marginals():
    game = basic()
    experts = tabular.expert_policies(game, BASIC["expert"])
    return tabular.marginals(game, BASIC["policies"]), tabular.marginals(game, experts)


def test_discriminators_of_the_basic_game():
    expected = EXPECTED["G1 discriminators"]
    for agent, (own, target) in enumerate(zip(*basic_marginals(), strict=True)):
        close(tabular.discriminator_reward(own, target, "logit"), expected["logit_clip10"][agent])
        close(tabular.discriminator_reward(own, target, "js"), expected["minus_log_1_minus_D"][agent])
        close(tabular.discriminator_reward(own, target, "linear", gamma=0.9), expected["linear_lam1"][agent])
        close(tabular.discriminator_reward(own, target, "indicator"), tabular.deterministic(BASIC["expert"][agent], 2))
        close(tabular.discriminator_loss(own, target, "js"), expected["js"][agent])
        close(tabular.discriminator_loss(own, target, "logit"), expected["js"][agent])
        close(tabular.discriminator_loss(own, target, "linear", gamma=0.9), expected["linear_loss"][agent])
        close(tabular.total_variation(own, target), expected["tv"][agent])
    game = basic()
    joint = [tabular.occupancy(game, p) for p in (BASIC["policies"], tabular.expert_policies(game, BASIC["expert"]))]
    close(tabular.total_variation(*joint), expected["joint_tv"])


def test_js_and_logit_are_those_of_the_discriminator_that_minimises_cross_entropy():
    own, target = np.array([[0.1, 0.5], [0.4, 0.0]]), np.array([[0.3, 0.2], [0.3, 0.2]])
    d = np.linspace(1e-6, 1 - 1e-6, 1_000_001)
    loss = 0.0
    for s, a in np.ndindex(own.shape):
        entropy = -target[s, a] * np.log(d) - own[s, a] * np.log(1 - d)
        best = d[entropy.argmin()]
        loss += entropy.min()
        if own[s, a] > 0:
            assert tabular.discriminator_reward(own, target, "js")[s, a] == pytest.approx(-np.log(1 - best), abs=1e-4)
            logit = np.log(best / (1 - best))
            assert tabular.discriminator_reward(own, target, "logit")[s, a] == pytest.approx(logit, abs=1e-4)
    assert tabular.discriminator_loss(own, target) == pytest.approx(np.log(2) - loss / 2, abs=1e-5)


def test_what_is_never_visited():
    own, target = np.array([[0.0, 0.0, 0.5, 0.5]]), np.array([[0.0, 0.5, 0.0, 0.5]])
    close(tabular.discriminator_reward(own, target, "js", clip=3), [[0, np.log1p(np.exp(3)), 0, np.log(2)]])
    close(tabular.discriminator_reward(own, target, "logit", clip=3), [[-3, 3, -3, 0]])
    close(tabular.discriminator_reward(own, target, "linear", gamma=0.5), [[0, 1, -1, 0]])
    close(tabular.discriminator_loss(own, target), np.log(2) / 2)
    rounded = own + np.array([[-1e-18, 0, 0, 0]])  # as a linear solve leaves it
    reached = target + np.array([[0.1, 0, 0, 0]])
    for kind in ("js", "logit"):
        expected = tabular.discriminator_reward(own, reached, kind)
        close(tabular.discriminator_reward(rounded, reached, kind), expected)
    close(tabular.discriminator_loss(own, target, "indicator"), 0.5)


# --- TRPO and Algorithm 2 ---------------------------------------------------------------------------------------------


def test_trpo_step_has_the_literal_numbers():
    expected = EXPECTED["G1 TRPO step (agent 0, indicator, delta .01)"]
    game, policies = basic(), BASIC["policies"]
    reward = tabular.deterministic(BASIC["expert"][0], 2)
    close(tabular.value(game, policies, 0, reward), expected["value"])
    new = tabular.trpo_step(game, policies, 0, reward, delta=0.01)
    close(new, expected["new_policy"])
    close(tabular.value(game, [new, policies[1]], 0, reward), expected["new_value"])
    own = np.einsum("sabt,sb->sat", game.transition, np.array(policies[1]))
    values = state_values(game, own, np.array(policies[0]), reward)
    close(values, expected["V"])
    close(action_values(game, own, values, reward), expected["Q"])


def test_trpo_step_keeps_its_promises():
    rng = np.random.default_rng(0)
    for seed in range(100):
        game, policies = uneven(seed, gamma=0.95)
        reward, delta = rng.standard_normal((4, 3)) * 10 ** rng.uniform(-3, 3), 10 ** rng.uniform(-4, 0)
        new = tabular.trpo_step(game, policies, 1, reward, delta=delta)
        divergence = tabular.visitation(game, policies) @ (policies[1] * np.log(policies[1] / new)).sum(axis=1)
        assert 0.1 * delta < divergence <= delta
        if delta < 1e-3:
            after = tabular.value(game, [policies[0], new, policies[2]], 1, reward)
            assert after > tabular.value(game, policies, 1, reward)


def test_trpo_step_leaves_no_action_without_a_chance():
    game = basic()
    certain = [tabular.deterministic([0, 0], 2)] * 2
    reward = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert np.array_equal(tabular.trpo_step(game, certain, 0, reward, floor=0), certain[0])  # 0 has no gradient
    close(tabular.trpo_step(game, certain, 0, reward).min(), np.exp(-20), atol=1e-12)
    nearly = [np.array([[1 - 1e-12, 1e-12]] * 2)] * 2
    assert tabular.trpo_step(game, nearly, 0, reward, delta=0.1).min() > 1e-3  # one step brings it back


def test_trpo_step_respects_a_loss_that_must_fall():
    game, policies = basic(), [np.array(policy) for policy in BASIC["policies"]]
    reward = tabular.deterministic(BASIC["expert"][0], 2)
    assert np.array_equal(tabular.trpo_step(game, policies, 0, reward, loss=lambda own: np.zeros(())), policies[0])
    free = tabular.trpo_step(game, policies, 0, reward)
    near = tabular.trpo_step(game, policies, 0, reward, loss=lambda own: np.abs(own - policies[0]).max() > 0.03)
    assert np.array_equal(near, policies[0])  # the loss was lowest before
    picky = tabular.trpo_step(
        game, policies, 0, reward, loss=lambda own: np.where(0 < np.abs(own - policies[0]).max() < 0.03, 0.0, 1.0)
    )
    assert 0 < np.abs(picky - policies[0]).max() < 0.03 < np.abs(free - policies[0]).max()


def tile_starts(seed, number=100):
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(3), size=(number, 12)) for _ in range(2)]


def joint_tv(game, policies, expert):
    target = tabular.occupancy(game, tabular.expert_policies(game, expert))
    return 0.5 * np.abs(tabular.occupancy(game, policies) - target).sum(axis=(1, 2, 3))


@pytest.mark.parametrize("order", ["turn", "simultaneous"])
@pytest.mark.parametrize("reward", ["js", "logit", "indicator"])
def test_algorithm_2_converges_on_the_compatible_tiles_from_100_of_100_starts(reward, order):
    tiles = tabular.four_tiles("together")
    policies, history = tabular.algorithm2(tiles.game, tiles.marginals, tile_starts(1), reward=reward, order=order)
    assert (joint_tv(tiles.game, policies, tiles.expert) < 0.01).all()
    assert history.gap.shape == history.loss.shape == (len(history.gap), 100, 2)
    assert len(history.gap) < 60
    assert history.gap[0].min() > 0.5 > 1e-6 > history.gap[-1].max()


@pytest.mark.parametrize("demonstrations", ["both want tile 0", "wandering partners"])
@pytest.mark.parametrize("reward", ["js", "logit"])
def test_algorithm_2_never_matches_incompatible_demonstrations(reward, demonstrations):
    """Nor does it get below the linear program's bound on the way."""
    tiles = tabular.four_tiles(demonstrations)
    bound = compatibility.check(tiles.game, tiles.marginals).lower_bound
    for order in ("turn", "simultaneous"):
        _, history = tabular.algorithm2(tiles.game, tiles.marginals, tile_starts(2), reward=reward, order=order)
        assert history.gap.max(axis=-1).min() >= bound - 1e-9 > 0.3


def test_algorithm_2_with_linear_discriminators_gets_stuck_now_and_then():
    tiles = tabular.four_tiles("together")
    policies, _ = tabular.algorithm2(tiles.game, tiles.marginals, tile_starts(0), reward="linear", sweeps=100)
    assert 90 <= (joint_tv(tiles.game, policies, tiles.expert) < 0.01).sum() < 100


def test_turn_by_turn_lowers_the_shared_loss_and_at_once_often_raises_it():
    """With discriminators of states alone all agents share one loss."""
    tiles, rises, matched = tabular.four_tiles("together"), {}, {}
    for order in ("turn", "simultaneous"):
        options = {"order": order, "inputs": "state", "sweeps": 100}
        _, history = tabular.algorithm2(tiles.game, tiles.marginals, tile_starts(3), **options)
        close(history.loss[..., 0], history.loss[..., 1])
        rises[order] = int((np.diff(history.loss[..., 0], axis=0) > 1e-9).any(axis=0).sum())
        matched[order] = int((history.gap[-1].max(axis=-1) < 0.01).sum())
    print(f"four tiles, discriminators of states, of 100 starts: loss rises {rises}, states matched {matched}")
    assert rises["turn"] == 0
    assert rises["simultaneous"] > 50
    assert matched["turn"] == 100 > matched["simultaneous"]


def test_algorithm_2_with_js_may_end_at_an_equilibrium_that_is_not_the_expert():
    """The coordination game, compatible demonstrations, turn by turn: every failure is a Nash equilibrium."""
    game = tabular.coordination(gamma=0.97)
    experts = tabular.expert_policies(game, np.zeros((2, 3), int))
    target, rng = tabular.marginals(game, experts), np.random.default_rng(0)
    starts = [rng.dirichlet(np.ones(2), size=(100, 3)) for _ in range(2)]
    matched = {}
    for reward in ("indicator", "js", "logit", "linear"):
        last, _ = tabular.algorithm2(game, target, starts, reward=reward, sweeps=120)
        gap = tabular.occupancy(game, last) - tabular.occupancy(game, experts)
        failed = 0.5 * np.abs(gap).sum(axis=(1, 2, 3)) >= 0.01
        matched[reward] = 100 - int(failed.sum())
        if reward == "js":
            stuck = [policy[failed] for policy in last]
            rewards = [
                tabular.discriminator_reward(own, expert)
                for own, expert in zip(tabular.marginals(game, stuck), target, strict=True)
            ]
            assert tabular.nash_gap(game, stuck, rewards).max() < 1e-3
    print(f"coordination game, of 100 starts: {matched}")
    assert matched["indicator"] == 100
    assert 40 < matched["js"] < 90
    assert matched["linear"] < matched["js"] < matched["logit"] < 100


def test_orders_differ_as_they_should():
    """The first agent's first step is the same; the second agent's sees it only turn by turn."""
    tiles = tabular.four_tiles("together")
    starts = tile_starts(4, 1)
    one, other = (
        tabular.algorithm2(tiles.game, tiles.marginals, starts, order=order, sweeps=1)[0]
        for order in ("turn", "simultaneous")
    )
    assert np.array_equal(one[0], other[0])
    assert not np.array_equal(one[1], other[1])
    assert not np.array_equal(one[0], starts[0])


# --- ready games ------------------------------------------------------------------------------------------------------


def test_four_tiles():
    tiles = tabular.four_tiles("together")
    assert [list(state) for state in tabular.TILE_STATES] == TILES["states"]
    assert tabular.go_to(0, 0).tolist() == TILES["goto_agent0_tile0"] == tiles.expert[0].tolist()
    assert tabular.go_to(1, 3).tolist() == TILES["goto_agent1_tile3"] == tiles.expert[1].tolist()
    close(tabular.largest_eps(tiles.game), TILES["largest_eps"])
    for name in ("together", "both want tile 0"):
        found = tabular.four_tiles(name).marginals
        close([mu.sum(axis=1) for mu in found], TILES[name]["state_marginals"])


def test_tiles_are_never_shared_and_agents_never_pass_through_each_other():
    game = tabular.four_tiles().game
    moves = {0: lambda c, r: (c, r), 1: lambda c, r: (1 - c, r), 2: lambda c, r: (c, 1 - r)}
    for state, (one, two) in enumerate(tabular.TILE_STATES):
        for a, b in itertools.product(range(3), repeat=2):
            ends = []
            for tile, action in ((one, a), (two, b)):
                column, row = moves[action](tile % 2, tile // 2)
                ends.append(2 * row + column)
            expected = tuple(ends)
            if expected[0] == expected[1] or expected == (two, one):
                expected = (one, two)
            assert tabular.TILE_STATES[game.transition[state, a, b].argmax()] == expected
            assert game.transition[state, a, b].max() == 1


def test_random_games_mix_in_their_reset():
    game = tabular.random_game(np.random.default_rng(0), num_states=4, num_actions=(2, 3), reset=0.4, concentration=0.01)
    assert game.transition.min() >= 0.1
    assert game.transition.shape == (4, 2, 3, 4)


# --- bad input --------------------------------------------------------------------------------------------------------

T = np.full((2, 2, 3, 2), 0.5)
GAME = tabular.Game(T, [0.5, 0.5], 0.9)
UNIFORM = [np.full((2, 2), 0.5), np.full((2, 3), 1 / 3)]
MU = [np.full((2, 2), 0.25), np.full((2, 3), 1 / 6)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tabular.Game(T[..., :1], [0.5, 0.5], 0.9), r"transition must have the shape \[S, A_1, ..., A_K, S\]"),
        (lambda: tabular.Game(T, [1.0], 0.9), r"start must have the shape \[2\]"),
        (lambda: tabular.Game(T, [0.5, 0.5], 1.0), "gamma must be at least 0 and less than 1, but it is 1"),
        (lambda: tabular.Game(T * 2, [0.5, 0.5], 0.9), "transition must hold probabilities.*one sum is 2"),
        (lambda: tabular.Game(T, [1.5, -0.5], 0.9), "start must hold probabilities.*least entry is -0.5"),
        (lambda: tabular.Game(T, [np.nan, 1], 0.9), "start must hold probabilities"),
        (lambda: tabular.visitation(GAME, UNIFORM[:1]), "expected 2 policies.*but got 1"),
        (lambda: tabular.visitation(GAME, UNIFORM[::-1]), r"policies\[0\] must have the shape \[2, 2\].*\[2, 3\]"),
        (lambda: tabular.occupancy(GAME, [UNIFORM[0], UNIFORM[1] * 2]), r"policies\[1\] must hold probabilities"),
        (lambda: tabular.marginals(GAME, [UNIFORM[0][None], UNIFORM[1]]), "the same leading axes"),
        (lambda: tabular.objectives(GAME, UNIFORM, [[0, 0]], 0.1), r"expert must hold integers of shape \[2, 2\]"),
        (lambda: tabular.objectives(GAME, UNIFORM, [[0.0, 0], [0, 0]], 0.1), "expert must hold integers.*float64"),
        (lambda: tabular.objectives(GAME, UNIFORM, [[0, 2], [0, 2]], 0.1), r"agent 0 has the actions 0 to 1.*\[0, 2\]"),
        (lambda: tabular.objectives(GAME, UNIFORM, [[0, 0], [0, 0]], 2), "eps must be between 0 and 1, but it is 2"),
        (lambda: tabular.discriminator_reward(MU[0], MU[1]), "same states and actions"),
        (lambda: tabular.discriminator_reward(MU[0], MU[0], "wgan"), "kind must be one of 'js', 'logit'.*'wgan'"),
        (lambda: tabular.discriminator_reward(MU[0], MU[0], "linear"), "needs the game's gamma"),
        (lambda: tabular.discriminator_reward(MU[0], MU[0], clip=0), "clip must be above 0"),
        (lambda: tabular.value(GAME, UNIFORM, 2, MU[0]), "agents 0 to 1, but agent is 2"),
        (lambda: tabular.best_response(GAME, UNIFORM, 0, MU[1]), r"reward of agent 0 must have the shape \[2, 2\]"),
        (lambda: tabular.nash_gap(GAME, UNIFORM, MU[:1]), "expected 2 rewards.*but got 1"),
        (lambda: tabular.reward_of_own_action(GAME, UNIFORM, 0, MU[0]), r"joint action must have the shape \[2, 2, 3\]"),
        (lambda: tabular.trpo_step(GAME, UNIFORM, 0, MU[0], delta=0), "delta.*above 0"),
        (lambda: tabular.trpo_step(GAME, UNIFORM, 0, MU[0], floor=0.5), "floor.*between 0 and 0.001"),
        (lambda: tabular.algorithm2(GAME, MU[:1], UNIFORM), "expected 2 expert_marginals.*but got 1"),
        (lambda: tabular.algorithm2(GAME, [MU[0], MU[1] * 2], UNIFORM), r"expert_marginals\[1\] must hold probab"),
        (lambda: tabular.algorithm2(GAME, [MU[0][None], MU[1]], UNIFORM), r"expert_marginals\[0\] must have two axes"),
        (lambda: tabular.algorithm2(GAME, MU, UNIFORM, reward="x"), "reward must be one of"),
        (lambda: tabular.algorithm2(GAME, MU, UNIFORM, order="x"), "order must be one of 'turn', 'simultaneous'"),
        (lambda: tabular.algorithm2(GAME, MU, UNIFORM, inputs="x"), "inputs must be one of"),
        (lambda: tabular.algorithm2(GAME, MU, UNIFORM, sweeps=-1), "sweeps must be at least 0"),
        (lambda: tabular.four_tiles("apart"), "demonstrations must be one of 'together'"),
        (lambda: tabular.TabularParallelEnv(GAME, np.zeros((2, 2))), r"reward must have the shape \[2, 2, 3\]"),
        (lambda: tabular.TabularParallelEnv(GAME, max_steps=0), "max_steps must be at least 1"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_games_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        GAME.transition[0] = 0


def test_import_is_light():
    program = (
        "import sys, dm2_wrappers.tabular; "
        "print(*sorted({*sys.modules} & {'scipy', 'torch', 'gymnasium', 'pettingzoo', 'matplotlib'})); "
        "import dm2_wrappers.compatibility; "
        "print(*sorted({*sys.modules} & {'scipy', 'matplotlib', 'jax', 'stable_baselines3'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
    assert all(getattr(tabular, name) is not None for name in tabular.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Gam'"):
        tabular.Gam  # noqa: B018


# --- as an environment ------------------------------------------------------------------------------------------------


def test_environment_obeys_pettingzoo():
    parallel_api_test(tabular.TabularParallelEnv(GAME), num_cycles=200)
    parallel_seed_test(lambda: tabular.TabularParallelEnv(GAME))


def test_environment_plays_the_game():
    """Time limit, rewards of the joint action, one-hot states, and transitions at the game's rates."""
    reward = np.arange(12.0).reshape(2, 2, 3)
    rng = np.random.default_rng(0)
    game = tabular.random_game(rng, num_states=2, num_actions=(2, 3))
    env = tabular.TabularParallelEnv(game, reward, max_steps=4000, name="mine")
    assert env.metadata["name"] == "mine"
    observations, infos = env.reset(seed=1)
    assert infos == {"agent_0": {}, "agent_1": {}}
    seen, steps, counts = observations["agent_0"], 0, np.zeros(game.transition.shape)
    while env.agents:
        actions = {"agent_0": int(rng.integers(2)), "agent_1": int(rng.integers(3))}
        observations, rewards, terminations, truncations, _ = env.step(actions)
        now = (int(seen.argmax()), actions["agent_0"], actions["agent_1"])
        assert rewards == dict.fromkeys(env.possible_agents, reward[now])
        assert not any(terminations.values())
        seen, steps = observations["agent_1"], steps + 1
        assert seen.dtype == np.float32
        assert sorted(seen) == [0, 1]
        assert np.array_equal(seen, env.state())
        counts[(*now, int(seen.argmax()))] += 1
        assert all(over == (steps == 4000) for over in truncations.values())
    rates = counts / counts.sum(axis=-1, keepdims=True)
    close(rates, game.transition, atol=0.08)
    firsts = [env.reset()[0]["agent_0"].argmax() for _ in range(1000)]
    assert np.mean(firsts) == pytest.approx(game.start[1], abs=0.06)


def test_environment_seeds():
    env = tabular.TabularParallelEnv(GAME, max_steps=30)

    def play(seed):
        states = [env.reset(seed=seed)[0]["agent_0"].argmax()]
        while env.agents:
            states.append(env.step({"agent_0": 0, "agent_1": 0})[0]["agent_0"].argmax())
        return states

    first = play(3)
    assert first == play(3) != play(None)


def test_environment_refuses_wrong_actions():
    env = tabular.TabularParallelEnv(GAME, max_steps=1)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step({"agent_0": 0, "agent_1": 0})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="one action for each"):
        env.step({"agent_0": 0})
    with pytest.raises(ValueError, match="'agent_0' has the actions 0 to 1, but its action is 2"):
        env.step({"agent_0": 2, "agent_1": 2})
    env.step({"agent_0": 1, "agent_1": 2})
    assert env.agents == []


def act(policies, seed):
    rng = np.random.default_rng(seed)

    def policy(observations):
        chances = {agent: policies[int(agent[-1])][seen.argmax()] for agent, seen in observations.items()}
        return {agent: int(rng.choice(len(chance), p=chance)) for agent, chance in chances.items()}

    return policy


def test_recordings_have_the_games_visitation():
    """Monte Carlo: discounted counts of recorded episodes against the linear solve."""
    tiles = tabular.four_tiles()
    policies = [policy[0] for policy in tile_starts(5, 1)]
    env = tabular.TabularParallelEnv(tiles.game, max_steps=40)
    demos = dm2.Demonstrations.record(env, act(policies, 0), 250, seed=0)
    assert demos.env_id == "tabular"
    weights = 0.9 ** (np.arange(250 * 40) % 40)
    found = weights @ demos.padded_observations[:, 0] / weights.sum()
    close(found, tabular.visitation(tiles.game, policies), atol=0.03)


def test_wrapper_and_sb3_team_run_on_it():
    from stable_baselines3 import PPO

    tiles = tabular.four_tiles()
    env = tabular.TabularParallelEnv(tiles.game, max_steps=16)
    demos = dm2.Demonstrations.record(env, act(tabular.expert_policies(tiles.game, tiles.expert), 0), 20, seed=0)
    wrapped = dm2.DM2ParallelEnv(env, demos, coefficient=1.0)
    parallel_api_test(wrapped, num_cycles=40)
    assert np.isfinite(wrapped.update()["loss"])

    matcher = dm2.DistributionMatcher(demos, seed=0)
    team = dm2.sb3.IndependentLearners(PPO, env, matcher=matcher, coefficient=1.0, seed=0, n_steps=64, batch_size=64)
    team.learn(128)
    assert set(team.predict(env.reset(seed=0)[0])) == {"agent_0", "agent_1"}
