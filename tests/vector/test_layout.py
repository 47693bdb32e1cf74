import numpy as np
import pytest
import torch
from gymnasium import spaces

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


@pytest.mark.parametrize("start", [0, 2])
def test_only_the_actions_of_the_space_have_a_number(start):
    layout = Layout(TinyEnv(start=start))
    assert [layout.array_action(0, start + action).item() for action in range(3)] == [0, 1, 2]
    for outside in (start - 1, start + 3):
        with pytest.raises(ValueError, match=f"the policy gave agent 'agent_0' the action {outside}, but its action space"):
            layout.array_action(0, outside)


def test_each_agent_gets_its_actions_in_its_own_precision():
    class Mixed(TinyEnv):
        def _action_space(self, agent):
            return spaces.Box(-1, 1, (2,), np.float32 if agent == "agent_0" else np.float64)

    layout = Layout(Mixed(continuous=True, actions=2))
    actions = layout.check_actions(np.full((1, 2, 2), 0.5), 1)
    assert [layout.native_action(k, actions[0, k]).dtype for k in range(2)] == [np.float32, np.float64]


def test_a_wrong_action_names_the_sub_environment_of_the_whole_batch():
    with pytest.raises(ValueError, match="agent 'agent_1' in sub-environment 5 was given the action 3, but"):
        Layout(TinyEnv()).check_actions(np.array([[0, 0], [0, 3]]), 2, first_copy=4)
