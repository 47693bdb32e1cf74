"""Unavailable actions have probability 0 in every forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

import dm2_wrappers as dm2

pytest.importorskip("ray.rllib", reason="needs the extra rllib")

from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

BOX, ACTIONS = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4)
MASKED = spaces.Dict({"observation": BOX, "action_mask": spaces.Box(0, 1, (4,), np.int8)})


def module(space):
    torch.manual_seed(0)
    return dm2.rllib.MaskedPPOModule(
        observation_space=space, action_space=ACTIONS, model_config=DefaultModelConfig(fcnet_hiddens=[8])
    )


@pytest.mark.parametrize("phase", ["forward_inference", "forward_exploration", "forward_train"])
def test_unavailable_actions_have_probability_zero(phase):
    masked, plain = module(MASKED), module(BOX)
    rows, mask = torch.rand(5, 3), torch.tensor([[1, 0, 1, 1]] * 4 + [[0, 0, 1, 0]], dtype=torch.int8)
    observations = {"observation": rows, "action_mask": mask}
    logits = getattr(masked, phase)({"obs": observations})["action_dist_inputs"]
    distribution = masked.get_train_action_dist_cls().from_logits(logits)
    probabilities = logits.softmax(-1)
    # By hand: the plain module's probabilities, renormalized over the available actions.
    open_ = getattr(plain, phase)({"obs": rows})["action_dist_inputs"].softmax(-1) * mask
    torch.testing.assert_close(probabilities, open_ / open_.sum(-1, keepdim=True))
    assert (probabilities[mask == 0] == 0).all()
    assert distribution.entropy().isfinite().all()
    assert distribution.entropy()[-1].item() == pytest.approx(0, abs=1e-6)
    assert set(observations) == {"observation", "action_mask"}  # the batch is used again


def test_the_critic_sees_the_observation_alone():
    masked, plain = module(MASKED), module(BOX)
    rows = torch.rand(5, 3)
    batch = {"obs": {"observation": rows, "action_mask": torch.ones(5, 4)}}
    torch.testing.assert_close(masked.compute_values(batch), plain.compute_values({"obs": rows}))


def test_it_is_copied_with_its_whole_space():
    assert module(MASKED).observation_space == MASKED
    assert module(BOX).observation_space == BOX
