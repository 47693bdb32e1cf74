"""Rewards of one joint step, as the wrappers pay them: the same as those of many steps at once, and the same errors."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.tiny_matchers import make, rollout

OPTIONS = {
    "default": {},
    "not centered": {"center": False},
    "softplus": {"reward": "-log(1-D)"},
    "one layer": {"hidden": (8,)},
    "standardized": {"standardize": True},
}


def trained(**options):
    matcher = make(**options)
    matcher.record(*rollout(seed=1))
    matcher.update()
    return matcher


def step_by_step(matcher, observations, alive):
    """One call for each step of each sub-environment."""
    flat = zip(observations.reshape(-1, 1, 2, 3), alive.reshape(-1, 1, 2), strict=True)
    return np.concatenate([matcher.rewards(*step) for step in flat]).reshape(alive.shape)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_same_as_many_steps_at_once(options):
    matcher = trained(**options)
    observations, alive = rollout(seed=2)
    paid = step_by_step(matcher, observations, alive)
    assert paid.dtype == np.float32
    np.testing.assert_allclose(paid, matcher.rewards(observations, alive), atol=2e-6)
    assert (paid[~alive] == 0).all()
    assert paid[alive].all()


def test_it_follows_the_training_and_a_loaded_state():
    matcher, (observations, alive) = trained(), rollout(seed=2)
    first, state = step_by_step(matcher, observations, alive), matcher.state_dict()
    matcher.record(observations, alive)
    matcher.update()
    second = step_by_step(matcher, observations, alive)
    np.testing.assert_allclose(second, matcher.rewards(observations, alive), atol=2e-6)
    assert np.abs(second - first).max() > 1e-3
    matcher.load_state_dict(state)
    np.testing.assert_array_equal(step_by_step(matcher, observations, alive), first)


def test_padding_means_nothing():
    matcher, (observations, alive) = trained(), rollout(seed=2)
    padded = observations.copy()
    padded[..., 1, 2:] = 5
    np.testing.assert_array_equal(step_by_step(matcher, padded, alive), step_by_step(matcher, observations, alive))


@pytest.mark.parametrize("number", [np.nan, np.inf, -2e18, 3e38])
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_not_finite_or_too_large_is_refused_where_the_agent_lives(number, strict):
    matcher, observations = trained(), rollout()[0][0, :1]
    observations[0, 1, 1] = number
    with np.errstate(all="raise" if strict else "warn"):
        with pytest.raises(ValueError, match="feature 1 of an observation of agent 'b' is "):
            matcher.rewards(observations, np.array([[True, True]]))
        paid = matcher.rewards(observations, np.array([[True, False]]))
    assert paid[0, 1] == 0
    assert np.isfinite(paid).all()


def test_replaced_logits_are_paid(monkeypatch):
    matcher, (observations, alive) = trained(center=False), rollout(seed=2)
    logits = matcher.discriminators.logits
    before = matcher.rewards(observations, alive)
    monkeypatch.setattr(matcher.discriminators, "logits", lambda rows: logits(rows) + 1)
    np.testing.assert_allclose(matcher.rewards(observations, alive), np.where(alive, before + 1, 0), atol=2e-6)
    np.testing.assert_allclose(step_by_step(matcher, observations, alive), np.where(alive, before + 1, 0), atol=2e-6)
