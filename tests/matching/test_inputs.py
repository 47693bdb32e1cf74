"""What a matcher takes as observations and flags."""

import numpy as np
import pytest
import torch

from tests.helpers.tiny_matchers import make, rollout, same

OBSERVATIONS, ALIVE = rollout(dead=0)


@pytest.mark.parametrize(
    "observations",
    [
        OBSERVATIONS + 1j,
        torch.from_numpy(OBSERVATIONS) + 1j,
        OBSERVATIONS.astype(str),
        np.zeros(OBSERVATIONS.shape, "M8[s]"),
    ],
)
def test_observations_are_real_numbers(observations):
    matcher = make()
    before = matcher.state_dict()
    for use in (lambda: matcher.record(observations, ALIVE), lambda: matcher.rewards(observations)):
        with pytest.raises(ValueError, match="expected observations as an array of real numbers, got"):
            use()
    with pytest.raises(ValueError, match="expected observations as an array of real numbers, got"):
        matcher.rewards({"a": observations[0, 0, 0]})
    assert same(matcher.state_dict(), before)


@pytest.mark.parametrize("given", [OBSERVATIONS.astype(object), OBSERVATIONS.astype(np.float64), OBSERVATIONS.tolist()])
def test_other_numbers_are_converted(given):
    one, other = make(), make()
    one.record(given, ALIVE)
    other.record(OBSERVATIONS, ALIVE)
    assert same(one.state_dict(), other.state_dict())


def test_flags_are_true_or_false():
    matcher = make()
    before = matcher.state_dict()
    with pytest.raises(ValueError, match="alive must hold True or False"):
        matcher.record(OBSERVATIONS, np.full(ALIVE.shape, 0.5))
    with pytest.raises(ValueError, match="alive must hold True or False"):
        matcher.record(OBSERVATIONS, torch.full(ALIVE.shape, 2))
    with pytest.raises(ValueError, match="broken must hold True or False"):
        matcher.record(OBSERVATIONS, ALIVE, broken=np.full(ALIVE.shape[:2], np.nan))
    with pytest.raises(ValueError, match="alive must hold True or False"):
        matcher.rewards(OBSERVATIONS, ALIVE * 3)
    assert same(matcher.state_dict(), before)
    np.testing.assert_array_equal(
        matcher.rewards(OBSERVATIONS, torch.from_numpy(ALIVE.astype(np.float32))), matcher.rewards(OBSERVATIONS, ALIVE)
    )
