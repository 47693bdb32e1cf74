"""The numbers that say whether discriminators see anything, and the warnings."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from dm2_wrappers.matching import diagnosis
from dm2_wrappers.matching.matcher import DistributionMatcher
from dm2_wrappers.matching.standardization import Standardization
from tests.helpers.tiny_matchers import Experts, make, rollout
from tests.matching import test_absorbing as absorbing


class Logits:
    """Discriminators whose logit is the first feature."""

    def logits(self, observations):
        return observations[..., 0]


def named(*sizes):
    return [[f"feature {i}" for i in range(size)] for size in sizes]


def slow_best_feature(expert, policy):
    """All features, all thresholds, both directions: [B, D] each."""
    best = (0.0, -1)
    for feature in range(expert.shape[1]):
        e, p = expert[:, feature], policy[:, feature]
        for threshold in np.concatenate([e, p]):
            share = ((e <= threshold).mean() + (p > threshold).mean()) / 2
            best = max(best, (max(share, 1 - share), -feature))
    return best[0], -best[1]


def test_numbers_are_those_of_a_slow_search():
    rng = np.random.default_rng(0)
    expert, policy = rng.normal(0, 1, (2, 2, 30, 5)).round(1)  # with equal values
    policy[0, :, 3] += 1.5
    policy[1, :, 2] -= 1
    tensors = [torch.tensor(side) for side in (expert, policy)]
    metrics = diagnosis.Diagnosis(("a", "b"), named(5, 5)).metrics(Logits(), *tensors, [True, True])
    for k, agent in enumerate("ab"):
        share, feature = slow_best_feature(expert[k], policy[k])
        assert metrics[f"single_feature/{agent}"] == pytest.approx(share)
        assert metrics[f"single_feature_index/{agent}"] == feature == (3, 2)[k]
        e, p = expert[k, :, 0], policy[k, :, 0]
        assert metrics[f"separation/{agent}"] == pytest.approx((e.mean() - p.mean()) / np.sqrt((e.var() + p.var()) / 2))
    narrow = diagnosis.Diagnosis(("a", "b"), named(5, 2)).metrics(Logits(), *tensors, [True, True])
    share, feature = slow_best_feature(expert[1, :, :2], policy[1, :, :2])  # feature 2 of "b" is padding here
    assert (narrow["single_feature/b"], narrow["single_feature_index/b"]) == (pytest.approx(share), feature)
    assert narrow["single_feature_index/a"] == 3
    only_a = diagnosis.Diagnosis(("a", "b"), named(5, 5)).metrics(Logits(), *tensors, [True, False])
    assert set(only_a) == {"separation/a", "single_feature/a", "single_feature_index/a"}


def test_features_that_never_vary_tell_nothing_and_different_constants_tell_all():
    alike = torch.ones(1, 4, 2)
    metrics = diagnosis.Diagnosis(("a",), named(2)).metrics(Logits(), alike, alike, [True])
    assert (metrics["separation/a"], metrics["single_feature/a"]) == (0.0, 0.5)
    other = torch.tensor([1.0, 2.0]).expand(1, 4, 2)
    metrics = diagnosis.Diagnosis(("a",), named(2)).metrics(Logits(), alike, other, [True])
    assert (metrics["single_feature/a"], metrics["single_feature_index/a"]) == (1.0, 1.0)


def measured(updates, expert, policy, standardized=False):
    """The warnings of one diagnosis of agents "a" and "b" over so many updates."""
    demonstrated = torch.randn(40, 3)
    through = Standardization(demonstrated, (20, 20), torch.zeros(2, 3)) if standardized else None
    one = diagnosis.Diagnosis(("a", "b"), named(3, 3), through)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(updates):
            one.metrics(Logits(), expert, policy, [True, True])
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(("standardized", "advice"), [(False, "standardize=True"), (True, "lower gradient_penalty")])
def test_blind_discriminators_are_named_once(standardized, advice):
    rng = np.random.default_rng(1)
    expert, policy = torch.tensor(rng.normal(size=(2, 2, 500, 3)))
    expert[1] += 1  # agent "b" sees
    assert measured(diagnosis.UPDATES - 1, expert, policy, standardized) == []
    (message,) = measured(diagnosis.UPDATES + 5, expert, policy, standardized)
    assert "discriminators of a still" in message
    assert advice in message


def test_a_feature_that_gives_the_experts_away_is_named_once():
    rng = np.random.default_rng(1)
    expert, policy = torch.tensor(rng.normal(size=(2, 2, 500, 3)))
    expert += 0.5
    policy[0, :, 2] += 10
    assert measured(diagnosis.UPDATES - 1, expert, policy) == []
    (message,) = measured(diagnosis.UPDATES + 5, expert, policy)
    assert "(feature 2 of a)" in message


def test_features_that_no_discriminator_sees_give_nothing_away():
    """A feature without a name, as that of the absorbing row, and one that standardization leaves out."""
    rng = np.random.default_rng(1)
    expert, policy = torch.tensor(rng.normal(size=(2, 2, 500, 3)))
    policy[..., 2] += 10
    names = (("feature 0", "feature 1", None), ("feature 0", "action feature 0", "action feature 1"))
    one = diagnosis.Diagnosis(("a", "b"), names)
    for _ in range(diagnosis.UPDATES - 1):
        one.metrics(Logits(), expert, policy, [True, True])
    with pytest.warns(UserWarning, match=r"\(action feature 1 of b\)"):
        metrics = one.metrics(Logits(), expert, policy, [True, True])
    assert metrics["single_feature/a"] < 0.7
    assert metrics["single_feature_index/b"] == 2
    demonstrated = torch.randn(40, 3)
    demonstrated[:20, 2] = 5.0  # constant in the demonstrations of "a"
    through = Standardization(demonstrated, (20, 20), torch.zeros(2, 3))
    metrics = diagnosis.Diagnosis(("a", "b"), named(3, 3), through).metrics(Logits(), expert, policy, [True, True])
    assert metrics["single_feature/a"] < 0.7
    assert metrics["single_feature/b"] == 1.0


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ("feature 0", "feature 1")),
        ({"inputs": "transition"}, ("feature 0", "feature 1", "next feature 0", "next feature 1")),
        ({"ends": "absorbing", "max_steps": 99}, ("feature 0", "feature 1", None)),
    ],
)
def test_features_are_named_by_what_they_are(options, names):
    matcher = DistributionMatcher(absorbing.demonstrations(), seed=0, **options)
    assert len(names) == matcher.discriminators.sizes[0]
    assert matcher._training.diagnosis._names[0] == names


def test_counts_are_part_of_a_matchers_state():
    """Saved in between, the warnings come when they would have come, and only once."""
    rng = np.random.default_rng(1)
    expert, policy = torch.tensor(rng.normal(size=(2, 2, 500, 3)))
    expert[1] += 1
    policy[1, :, 2] += 10

    def after(updates, state):
        one = diagnosis.Diagnosis(("a", "b"), named(3, 3))
        if state is not None:
            one.load_state_dict(state)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(updates):
                one.metrics(Logits(), expert, policy, [True, True])
        return len(caught), one.state_dict()

    state, counts = None, []
    for updates in (diagnosis.UPDATES - 1, 1, diagnosis.UPDATES):
        count, state = after(updates, state)
        counts.append(count)
    assert counts == [0, 2, 0]  # a is blind, b is given away
    with pytest.raises(KeyError):
        diagnosis.Diagnosis(("a", "c"), named(3, 3)).load_state_dict(state)
    matcher = make()
    matcher.record(*rollout())
    matcher.update()
    other = make()
    other.load_state_dict(matcher.state_dict())
    assert other.state_dict()["diagnosis"] == matcher.state_dict()["diagnosis"]
    assert len(other.state_dict()["diagnosis"]["separations"]["a"]) == 1
    older = {name: value for name, value in matcher.state_dict().items() if name != "diagnosis"}
    other.load_state_dict(older)
    assert len(other.state_dict()["diagnosis"]["separations"]["a"]) == 1


def test_update_measures_its_newest_minibatch_after_training():
    matcher = make()
    drawn = []
    draw = matcher._training.minibatches.draw
    matcher._training.minibatches.draw = lambda *args: (drawn.append(each) or each for each in draw(*args))
    matcher.record(*rollout())
    metrics = matcher.update()
    assert len(drawn) == 3
    expert, policy = (matcher.discriminators.logits(side.transpose(0, 1)).numpy() for side in drawn[-1][:2])
    for k, agent in enumerate(("a", "b")):
        e, p = expert[:, k], policy[:, k]
        assert metrics[f"separation/{agent}"] == pytest.approx(
            (e.mean() - p.mean()) / np.sqrt((e.var() + p.var()) / 2), rel=1e-4
        )
        assert metrics[f"single_feature/{agent}"] == 1.0  # experts are around 1 and 2, the policy around -1


def test_small_observations_blind_raw_discriminators_and_not_standardized_ones(monkeypatch):
    """Experts whose features differ from the policy's by two deviations, in units of 1/100."""
    monkeypatch.setattr(diagnosis, "UPDATES", 8)
    observations, alive = rollout(steps=50, dead=0.0)
    small = Experts()
    for agent in small.agents:
        small._observations[agent] = small._observations[agent] * np.float32(0.01)
    observations = (observations * 0.01).astype(np.float32)
    observations[..., 0, :] += np.float32(0.014)  # then around 0.004, where the experts of "a" are around 0.01
    with pytest.warns(UserWarning, match="use DistributionMatcher\\(standardize=True\\)") as said:
        separations = [updated(small, observations, alive, standardize=False)]
    separations.append(updated(small, observations, alive, standardize=True))
    assert said[0].filename == __file__  # the line that called `update`
    assert separations[0] < diagnosis.BLIND
    assert separations[1] > 1


def updated(experts, observations, alive, **options):
    matcher = DistributionMatcher(experts, updates=12, batch_size=32, seed=0, **options)
    for _ in range(diagnosis.UPDATES):
        matcher.record(observations, alive)
        metrics = matcher.update()
    return metrics["separation/a"]


def test_only_the_second_half_of_the_first_updates_says_whether_a_discriminator_is_blind():
    one, half = diagnosis.Diagnosis(("a",), named(1)), diagnosis.UPDATES // 2
    policy = torch.tensor([-1.0, 1.0]).repeat(50)[None, :, None]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for update in range(2 * half):
            gap = 1.4 * diagnosis.BLIND if update >= half else 0.0
            one.metrics(Logits(), policy + gap, policy, [True])
        assert not caught  # it learned to see
        for _ in range(half):
            one.metrics(Logits(), policy, policy, [True])
    assert not caught  # later the team plays like its experts
    assert len(one.state_dict()["separations"]["a"]) == diagnosis.UPDATES


def test_a_feature_has_to_give_the_experts_away_in_updates_one_after_the_other():
    one = diagnosis.Diagnosis(("a",), named(1))
    policy = torch.randn(1, 50, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for update in range(2 * diagnosis.UPDATES):
            expert = policy + (0.5 if update % diagnosis.UPDATES == 0 else 100)
            one.metrics(Logits(), expert, policy, [True])
    assert one.state_dict()["given_away"] == {"a": diagnosis.UPDATES - 1}


def test_the_feature_that_tells_most_is_found_behind_others():
    """One whose means differ little for its deviation, and one after many that have no name."""
    policy = torch.randn(1, 200, 2, generator=torch.Generator().manual_seed(0))
    expert = policy + 1.0
    policy[..., 1], expert[..., 1] = -0.1, 0.1
    policy[:, :4, 1] = -1000.0
    metrics = diagnosis.Diagnosis(("a",), named(2)).metrics(Logits(), expert, policy, [True])
    assert (metrics["single_feature/a"], metrics["single_feature_index/a"]) == (1.0, 1.0)
    unnamed = 3 * diagnosis._CANDIDATES
    expert, policy = (torch.cat((side[..., :1].expand(-1, -1, unnamed), side[..., 1:]), 2) for side in (expert, policy))
    names = [[None] * unnamed + ["feature"]]
    metrics = diagnosis.Diagnosis(("a",), names).metrics(Logits(), expert, policy, [True])
    assert (metrics["single_feature/a"], metrics["single_feature_index/a"]) == (1.0, unnamed)
