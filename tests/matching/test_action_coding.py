"""Actions as features, by hand."""

import numpy as np
import pytest
from gymnasium import spaces

from dm2_wrappers import Demonstrations, DistributionMatcher
from dm2_wrappers.matching.action_coding import ActionCoding, described_spaces

ALL = np.ones((1, 2), bool)


def demonstrations(a, b, **more):
    """One episode of two agents with one feature that do these actions."""
    steps = {agent: np.zeros((len(a), 1)) for agent in "ab"}
    return Demonstrations.from_episodes([{"observations": steps, "actions": {"a": a, "b": b}, **more}])


def test_discrete_actions_without_spaces_have_one_more_feature_for_those_that_no_expert_took():
    coding = ActionCoding("ab", demonstrations([0, 2], [1, 0]), None)
    assert coding.sizes == (4, 3)
    np.testing.assert_array_equal(coding.features([[2, 1]], ALL), [[[0, 0, 1, 0], [0, 1, 0, 0]]])
    np.testing.assert_array_equal(coding.features([[7, 2]], ALL), [[[0, 0, 0, 1], [0, 0, 1, 0]]])


def test_discrete_actions_with_spaces_are_one_hot_and_checked():
    described = described_spaces({"a": spaces.Discrete(3), "b": spaces.Discrete(2)}, "ab")
    assert described == {"a": 3, "b": 2}
    assert described_spaces(described, "ab") == described
    coding = ActionCoding("ab", demonstrations([0, 1], [1, 0]), described)
    assert coding.sizes == (3, 2)
    np.testing.assert_array_equal(coding.features([[2, 1]], ALL), [[[0, 0, 1], [0, 1, 0]]])
    with pytest.raises(ValueError, match="agent 'b' took the action 2, but its actions are 0 to 1"):
        coding.features([[2, 2]], ALL)
    with pytest.raises(ValueError, match="in the demonstrations, agent 'b' took the action 2"):
        ActionCoding("ab", demonstrations([0, 1], [2, 0]), described)
    with pytest.raises(ValueError, match="in the demonstrations, agent 'a' took the action 3, but its actions are 0 to 2"):
        ActionCoding("ab", demonstrations([3, 0], [0, 0]), described)


def test_what_a_dead_agent_does_is_not_seen():
    coding = ActionCoding("ab", demonstrations([0, 1], [1, 0]), {"a": 2, "b": 2})
    np.testing.assert_array_equal(coding.features([[1, 9]], np.array([[True, False]])), [[[0, 1], [0, 0]]])


def test_continuous_actions_are_scaled_by_their_space_and_not_where_it_has_no_bounds():
    box = spaces.Box(np.array([0, -np.inf], np.float32), np.array([4, 7], np.float32))
    described = described_spaces({"a": box, "b": spaces.Box(-2, 2, (1,))}, "ab")
    assert described == {"a": [[0.0, None], [4.0, 7.0]], "b": [[-2.0], [2.0]]}
    coding = ActionCoding("ab", demonstrations([[1.0, 3.0]], [[1.0, 0.0]]), described)
    assert coding.sizes == (2, 1)
    np.testing.assert_allclose(coding.features([[[1, 3], [1, 0]]], ALL), [[[-0.5, 3], [0.5, 0]]])


def test_continuous_actions_without_spaces_are_scaled_by_the_experts_range():
    coding = ActionCoding("ab", demonstrations([[1.0], [3.0]], [[5.0], [5.0]]), None)
    np.testing.assert_allclose(coding.features([[[1], [5]]], ALL), [[[-1], [5]]])  # b's do not differ
    np.testing.assert_allclose(coding.features([[[4], [6]]], ALL), [[[2], [6]]])
    with pytest.raises(ValueError, match="an action of agent 'b' is not finite"):
        coding.features([[[4], [np.nan]]], ALL)


@pytest.mark.parametrize("actions", [[[0.5, 1.0]], [[0, 1, 0]], [0, 1]])
def test_actions_of_another_shape_or_type_are_refused(actions):
    with pytest.raises(ValueError, match=r"expected integer actions of shape \(1, 2\)"):
        ActionCoding("ab", demonstrations([0, 1], [1, 0]), None).features(actions, ALL)


def test_demonstrations_without_actions_are_refused():
    observations = {"a": np.zeros((3, 1)), "b": np.zeros((3, 1))}
    with pytest.raises(ValueError, match=r'inputs="state-action" needs the experts. actions.*hold none'):
        DistributionMatcher(Demonstrations.from_episodes([observations]), inputs="state-action")
    ActionCoding("ab", demonstrations([0, 0], [0, 0]), None)  # given, though all are 0


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"a": spaces.Discrete(2)}, r"one space for each of \['a', 'b'\]"),
        ({"a": spaces.Discrete(2), "b": spaces.MultiBinary(2)}, "must be Discrete or Box spaces"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(given, match):
    with pytest.raises(ValueError, match=match):
        described_spaces(given, ["a", "b"])
    with pytest.raises(ValueError, match="the action space of agent 'a' is a Box"):
        ActionCoding("ab", demonstrations([0, 1], [1, 0]), {"a": [[0.0], [1.0]], "b": 2})
