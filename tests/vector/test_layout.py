import numpy as np
import pytest
import torch

from dm2_wrappers.vector.layout import Layout
from tests.helpers.tiny_envs import TinyEnv


def test_dicts_of_one_environment_become_arrays_with_their_masks():
    env = TinyEnv(sizes=(4, 3), actions=(4, 3), masks=True)
    layout = Layout(env)
    observations, _ = env.reset(seed=0)
    observations["agent_0"]["action_mask"] = np.array([1, 0, 1, 0], np.int8)
    joint, masks = layout.joint_arrays(observations, {"agent_1": {"action_mask": np.array([0, 0, 1], np.int8)}})
    np.testing.assert_array_equal(joint[0, 0], observations["agent_0"]["observation"])
    np.testing.assert_array_equal(joint[0, 1], [*observations["agent_1"]["observation"], 0])
    assert masks.astype(int).tolist() == [[[1, 0, 1, 0], [*observations["agent_1"]["action_mask"], 0]]]
    joint, masks = layout.joint_arrays({"agent_1": observations["agent_1"]}, None)
    assert not joint[0, 0].any()
    assert masks[0, 0].astype(int).tolist() == [1, 1, 1, 1]  # nothing is known of an absent agent's
    with pytest.raises(ValueError, match=r"observation of unknown agent 'x'; the agents are \['agent_0', 'agent_1'\]"):
        layout.joint_arrays({"x": observations["agent_0"]}, None)


def test_masks_may_come_in_infos():
    env = TinyEnv(sizes=(2, 2))
    layout = Layout(env)
    observations, _ = env.reset(seed=0)
    _, masks = layout.joint_arrays(observations, {"agent_1": {"action_mask": np.array([0, 1, 0], np.int8)}})
    assert masks.astype(int).tolist() == [[[1, 1, 1], [0, 1, 0]]]


def test_continuous_actions_have_no_masks():
    env = TinyEnv(sizes=(2, 2), actions=2, continuous=True)
    observations, _ = env.reset(seed=0)
    joint, masks = Layout(env).joint_arrays(observations, {})
    assert masks is None
    np.testing.assert_array_equal(joint[0], np.stack(list(observations.values())))


@pytest.mark.parametrize(
    ("actions", "came"),
    [
        ([[0, 1], [0]], r"\[\[0, 1\], \[0\]\]"),
        (torch.zeros(2, 2, requires_grad=True), r"tensor\(.*requires_grad=True\)"),
        (None, "None"),
        (np.zeros((2, 3), int), r"int64 of shape \(2, 3\)"),
        (np.zeros((2, 2)), r"float64 of shape \(2, 2\)"),
    ],
)
def test_what_is_no_array_of_actions_is_shown(actions, came):
    with pytest.raises(ValueError, match=rf"actions must be integers \[N, K\] of shape \(2, 2\), got {came}$"):
        Layout(TinyEnv()).check_actions(actions, 2)
    assert Layout(TinyEnv()).check_actions(torch.ones(2, 2, dtype=torch.int64), 2).tolist() == [[1, 1], [1, 1]]
