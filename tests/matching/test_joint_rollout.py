"""What `JointRollout.append` takes, and that a refused step leaves the rollout as it was."""

import numpy as np
import pytest

from dm2_wrappers import DistributionMatcher, JointRollout, SelfImitation
from tests.helpers import small_demonstrations
from tests.helpers.tiny_matchers import make, rollout

OBSERVATIONS, ALIVE = rollout(steps=6, copies=2)
GOOD = (OBSERVATIONS[0], ALIVE[0], np.zeros(2, bool))


@pytest.mark.parametrize(
    ("step", "match"),
    [
        ((OBSERVATIONS[0, 0], *GOOD[1:]), r"expected the observations of one joint step, \[N, 2, 3\].*got \(2, 3\)"),
        ((OBSERVATIONS[0, :, :1], *GOOD[1:]), r"got \(2, 1, 3\)"),
        ((OBSERVATIONS[0, :, :, :2], *GOOD[1:]), r"got \(2, 2, 2\)"),
        ((GOOD[0], ALIVE[0, 0], GOOD[2]), r"expected alive of shape \(2, 2\), got \(2,\)"),
        ((*GOOD[:2], False), r"expected ended of shape \(2,\), got \(\)"),
        ((*GOOD[:2], np.zeros((2, 2), bool)), r"expected ended of shape \(2,\), got \(2, 2\)"),
        ((*GOOD[:2], [0.5, 0]), "ended must hold True or False"),
        ((*GOOD, [True]), r"expected broken of shape \(2,\), got \(1,\)"),
        ((OBSERVATIONS[0, :1], ALIVE[0, :1], [False]), "this rollout has steps of 2 sub-environments, got one of 1"),
    ],
)
def test_a_step_of_another_form_is_refused_and_not_added(step, match):
    one, other = JointRollout(make()), JointRollout(make())
    for t in range(6):
        if t == 3:
            with pytest.raises(ValueError, match=match):
                one.append(*step)
        for each in (one, other):
            each.append(OBSERVATIONS[t], ALIVE[t], np.full(2, t == 4))
    np.testing.assert_array_equal(one.gail_rewards(), other.gail_rewards())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"team_rewards": np.ones((1, 2))}, "one finite number for each of 1 sub-environments, got"),
        ({"team_rewards": [np.nan]}, "one finite number for each"),
        ({"actions": np.zeros(1, int)}, r"expected actions, integers \[1, 2\] or floats \[1, 2, A\], got int64 \[1\]"),
        ({"actions": np.zeros((1, 2))}, "got float64"),
        ({"actions": np.zeros((2, 2), int)}, r"got int64 \[2, 2\]"),
        ({"team_rewards": ["a"]}, "one finite number for each"),
    ],
)
@pytest.mark.parametrize("inputs", ["state", "state-action"])
def test_actions_and_rewards_of_another_form_do_not_reach_self_imitation(changes, match, inputs):
    demos = small_demonstrations.make()
    matcher = DistributionMatcher(SelfImitation(demos, above_mean=False), updates=1, batch_size=4, seed=0, inputs=inputs)
    joint = JointRollout(matcher)
    step = {"actions": np.zeros((1, 2), np.int64), "team_rewards": [1.0]}
    seen, alive = np.ones((1, 2, 3), np.float32), np.ones((1, 2), bool)
    seen[:, 1, 2] = 0
    with pytest.raises(
        ValueError, match="expected integer actions" if "actions" in changes and inputs != "state" else match
    ):
        joint.append(seen, alive, [False], **{**step, **changes})
    for t in range(3):
        joint.append(seen, alive, [t == 2], **step)
    assert joint.gail_rewards().shape == (3, 1, 2)
    assert matcher.self_imitation.returns == [3.0]


def test_one_episodes_actions_are_of_one_kind():
    """The experts' own may be of another: no discriminator sees actions here."""
    joint = JointRollout(
        DistributionMatcher(SelfImitation(small_demonstrations.make(), above_mean=False), updates=1, seed=0)
    )
    seen, alive = np.zeros((1, 2, 3), np.float32), np.ones((1, 2), bool)
    joint.append(seen, alive, [False], actions=np.zeros((1, 2, 1)), team_rewards=[1.0])
    with pytest.raises(ValueError, match=r"actions of the shape \[1\] of each agent, as in the step before, got \[\]"):
        joint.append(seen, alive, [True], actions=np.zeros((1, 2), int), team_rewards=[1.0])
    joint.append(seen, alive, [True], actions=np.zeros((1, 2, 1)), team_rewards=[1.0])
    assert joint.matcher.self_imitation.returns == [2.0]


def test_a_rollout_that_cannot_be_recorded_is_not_lost():
    joint = JointRollout(make())
    joint.append(*GOOD)
    joint.append(np.full_like(GOOD[0], np.nan), *GOOD[1:])
    for _ in range(2):
        with pytest.raises(ValueError, match="finite"):
            joint.gail_rewards()


def test_a_new_rollout_may_have_another_number_of_sub_environments():
    joint = JointRollout(make())
    joint.append(*GOOD)
    joint.gail_rewards()
    joint.clear()
    joint.append(OBSERVATIONS[0, :1], ALIVE[0, :1], [False])
    assert joint.gail_rewards().shape == (1, 1, 2)


def test_a_step_without_what_self_imitation_needs_does_not_advance_the_clock():
    demos = small_demonstrations.make()
    matcher = DistributionMatcher(SelfImitation(demos), updates=1, batch_size=4, seed=0)
    joint = JointRollout(matcher)
    seen, alive, actions = np.ones((1, 2, 3), np.float32), np.ones((1, 2), bool), np.zeros((1, 2), np.int64)
    with pytest.raises(ValueError, match="SelfImitation needs each step's actions and team_rewards"):
        joint.append(seen, alive, [False])
    for t in range(3):
        joint.append(seen, alive, [t == 2], actions=actions, team_rewards=[1.0])
    assert matcher.self_imitation.state_dict()["offered"] == 1  # the episode was seen whole
