"""Discriminators that see features in the experts' standard deviations."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import dm2_wrappers as dm2
from dm2_wrappers.matching.matcher import DistributionMatcher
from dm2_wrappers.matching.standardization import Standardization
from tests.helpers.sb3_teams import demonstrations
from tests.helpers.tiny_envs import TinyEnv
from tests.helpers.tiny_matchers import AGENTS, Experts, make, rollout, same
from tests.matching import test_absorbing as absorbing


def by_hand(experts, observations):
    """Of one agent: less the mean, over the deviation of at least 5 % of the range; constant features are 0."""
    experts = experts.astype(np.float64)
    low, high = experts.min(0), experts.max(0)
    deviation = np.maximum(experts.std(0), 0.05 * (high - low))
    return (observations - experts.mean(0)) / np.where(high > low, deviation, np.inf)


def experts_with(rows, agent="a"):
    """Experts of whom one has these observations."""
    experts = Experts()
    experts._observations[agent] = np.asarray(rows, np.float32)
    return experts


def test_discriminators_see_features_in_each_agents_own_deviations():
    rng = np.random.default_rng(0)
    rows = rng.normal(50, 7, (400, 3))
    rows[:, 1] = 3.0  # constant
    rows[:, 2] = np.arange(400) == 17  # on once: its deviation, 0.05, is that of the floor
    rows[17, 2] = 100.0  # deviation 4.99, floor 5
    experts = experts_with(rows)
    matcher = DistributionMatcher(experts, standardize=True, seed=0)
    raw = DistributionMatcher(experts, seed=0)  # the same weights
    observations, _ = rollout()
    seen = np.zeros_like(observations)
    for k, (agent, size) in enumerate(zip(AGENTS, (3, 2), strict=True)):
        seen[..., k, :size] = by_hand(experts.observations(agent), observations[..., k, :size])
    assert (seen[..., 0, 1] == 0).all()
    np.testing.assert_allclose(matcher.rewards(observations), raw.rewards(seen), atol=1e-5)


@pytest.mark.parametrize("networks", [{}, {"hidden": (64, 64, 8)}, {"module": lambda agent, size: nn.Linear(size, 1)}])
def test_units_change_nothing(networks):
    """Logits, the loss with its gradient penalty, weights: the same for features in other units, for all networks."""
    factors, shift = np.array([1 / 64, 1.0, 4096.0], np.float32), np.array([0.5, 0, 1024], np.float32)
    scaled = Experts()
    for agent, size in zip(AGENTS, (3, 2), strict=True):
        scaled._observations[agent] = scaled._observations[agent] * factors[:size] + shift[:size]
    observations, alive = rollout()
    options = {"updates": 5, "batch_size": 16, "standardize": True, "gradient_penalty": 10.0, "seed": 0, **networks}
    one, other = DistributionMatcher(Experts(), **options), DistributionMatcher(scaled, **options)
    metrics = []
    for matcher, seen in ((one, observations), (other, observations * factors + shift)):
        matcher.record(seen, alive)
        metrics.append(matcher.update())
    assert metrics[0] == pytest.approx(metrics[1], abs=2e-3)
    assert metrics[0]["gradient_penalty"] > 0.01
    np.testing.assert_allclose(one.rewards(observations), other.rewards(observations * factors + shift), atol=2e-3)
    raw = DistributionMatcher(Experts(), **{**options, "standardize": False})
    raw.record(observations, alive)
    assert raw.update()["gradient_penalty"] != pytest.approx(metrics[0]["gradient_penalty"], abs=1e-2)


def test_agents_share_nothing():
    """An agent's rewards are the same, whatever the other agent's demonstrations are."""
    observations, alive = rollout()
    paid = []
    for other in (np.zeros((30, 2)), np.random.default_rng(3).normal(1e3, 9, (30, 2))):
        matcher = DistributionMatcher(experts_with(other, "b"), updates=3, batch_size=16, standardize=True, seed=0)
        matcher.record(observations, alive)
        matcher.update()
        paid.append(matcher.rewards(observations)[..., 0])
    np.testing.assert_allclose(paid[0], paid[1], rtol=1e-5)


def test_features_that_hardly_vary_are_left_out():
    rows = np.full((40, 3), [1e6, 1e-20, 5.0])
    rows[:20] += [0.5, 1e-20, 1.0]
    matcher = DistributionMatcher(experts_with(rows), standardize=True, seed=0)
    observation = np.array([1e6, 1e-20, 5.0], np.float32)
    reward = matcher.rewards({"a": observation})["a"]
    for i, change in enumerate((3.0, 1e18, 1.0)):
        changed = observation.copy()
        changed[i] += change
        same_reward = matcher.rewards({"a": changed})["a"] == reward
        assert same_reward == (i < 2)  # rounding, and a range too small to divide by


def test_the_scale_is_part_of_the_state():
    matcher = make(standardize=True)
    observations, alive = rollout()
    matcher.record(observations, alive)
    matcher.update()
    state = copy.deepcopy(matcher.state_dict())
    other = DistributionMatcher(
        experts_with(np.random.default_rng(9).normal(7, 3, (40, 3))),
        updates=3,
        batch_size=16,
        buffer_size=100,
        standardize=True,
    )
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.rewards(observations), matcher.rewards(observations))
    assert same(other.state_dict(), state)
    matcher.discriminators.standardization.mean.add_(1)
    assert same(other.state_dict(), state)  # loaded as a copy


@pytest.mark.parametrize(
    ("mine", "change", "message"),
    [
        (False, lambda state: None, "use standardize=True"),
        (True, lambda state: state.pop("standardization"), "use standardize=False"),
        (True, lambda state: state["standardization"].update(mean=torch.zeros(2, 1, 4)), "finite mean of the features"),
        (True, lambda state: state["standardization"]["factor"].fill_(torch.nan), "finite factor of the features"),
        (True, lambda state: state["standardization"].pop("factor"), "damaged"),
    ],
)
def test_a_state_of_another_scale_is_refused(mine, change, message):
    state = make(standardize=True).state_dict()
    change(state["discriminators"])
    matcher = make(standardize=mine)
    before = matcher.state_dict()
    with pytest.raises(ValueError, match=message):
        matcher.load_state_dict(state)
    assert same(matcher.state_dict(), before)


def test_the_penalty_is_10_and_1_for_standardized_observations():
    assert make().discriminators.gradient_penalty == make().options["gradient_penalty"] == 10.0
    assert (
        make(standardize=True).discriminators.gradient_penalty == make(standardize=True).options["gradient_penalty"] == 1.0
    )
    assert make(standardize=True, gradient_penalty=3).discriminators.gradient_penalty == 3.0


def test_raw_states_have_no_scale():
    assert "standardization" not in make().state_dict()["discriminators"]
    with pytest.raises(ValueError, match="standardize must be True or False"):
        make(standardize=1)


def test_what_standardization_does_not_fit_is_refused():
    alone = dm2.SelfImitation(env=TinyEnv())
    with pytest.raises(ValueError, match=r"leave standardize out with SelfImitation alone"):
        DistributionMatcher(alone, standardize=True)
    both = dm2.SelfImitation(demonstrations())
    assert DistributionMatcher(both, standardize=True).discriminators.standardization is not None


@pytest.mark.parametrize("inputs", ["state", "transition"])
def test_with_absorbing_ends_units_change_nothing_either(inputs):
    """The absorbing row is at the mean of all features; the feature that tells it apart stays as it is."""
    paid = []
    for factor, shift in ((1.0, 0.0), (64.0, 1024.0)):
        demos = absorbing.demonstrations(lambda values, factor=factor, shift=shift: values * factor + shift)
        options = {"ends": "absorbing", "gamma": 0.9, "max_steps": absorbing.LIMIT, "standardize": True, "inputs": inputs}
        matcher = DistributionMatcher(demos, updates=3, batch_size=16, seed=0, **options)
        observations, alive, after = absorbing.episodes(np.random.default_rng(0))
        own = np.arange(2) < np.array(matcher.sizes)[:, None]
        observations, following = (
            np.where(own, seen * factor + shift, 0).astype(np.float32) for seen in (observations, after.observations)
        )
        after = dataclasses.replace(after, observations=following)
        matcher.record(observations, alive, after=after)
        matcher.update()
        paid.append(matcher.rewards(observations, alive, after=after))
    np.testing.assert_allclose(paid[0], paid[1], atol=5e-3)
    assert np.abs(paid[0]).max() > 0.05
    row = matcher._training.absorbing_shares(matcher._recorded).row
    np.testing.assert_array_equal(matcher.discriminators.standardization(row[:, None])[:, 0], row)
    live = matcher._experts.rows[: matcher._experts.counts[0]].expand(2, -1, -1)
    seen = matcher.discriminators.standardization(live)[0]
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-4)
    assert (seen[:, matcher.discriminators.sizes[0] - 1] == 0).all()  # the feature that is 1 in the absorbing row


def test_demonstrations_without_any_variation_are_warned_of():
    with pytest.warns(UserWarning, match=r"every feature is constant.* in the demonstrations of b, so") as said:
        DistributionMatcher(experts_with(np.ones((30, 2)), "b"), standardize=True)
    assert said[0].filename == __file__
    with pytest.warns(UserWarning, match="of b, so"):  # a deviation of 1 around 1e9 is float32's rounding
        DistributionMatcher(experts_with(1e9 + np.random.default_rng(0).normal(size=(30, 2)), "b"), standardize=True)


def test_a_feature_that_is_hardly_ever_on_is_at_most_twenty_deviations_from_its_mean():
    rows = torch.zeros(10_000, 1)
    rows[3] = 1.0
    seen = Standardization(rows, (10_000,), torch.zeros(1, 1))(torch.ones(1, 1, 1))
    assert seen.item() == pytest.approx(20, rel=1e-3)  # and not 100, one over the deviation
