"""TRPO steps, and where Algorithm 2 ends on the four tiles and in the coordination game."""

from __future__ import annotations

import numpy as np
import pytest

from dm2_wrappers import compatibility, tabular
from dm2_wrappers.tabular.responses import action_values, state_values
from tests.helpers.tabular_games import BASIC, EXPECTED, basic, close, tile_starts, uneven

# --- TRPO steps -------------------------------------------------------------------------------------------------------


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


# --- Algorithm 2 ------------------------------------------------------------------------------------------------------


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
