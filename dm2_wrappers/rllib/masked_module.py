"""RLlib's PPO networks with action masks."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns

# As a logit: its probability is exactly 0 in float32.
_UNAVAILABLE = -1e8


class MaskedPPOModule(DefaultPPOTorchRLModule):
    """PPO's default module for observations ``{"observation", "action_mask"}``; other observations work as usual.

    Actor and critic see the observation. Unavailable actions have probability 0 while exploring, in training and in
    inference.
    """

    def __init__(self, *args: Any, observation_space: spaces.Space | None = None, **kwargs: Any) -> None:
        self._whole_space = observation_space
        self.masks = isinstance(observation_space, spaces.Dict) and "action_mask" in observation_space.spaces
        # The networks are built for the observation alone.
        own = observation_space["observation"] if self.masks else observation_space  # type: ignore[index]
        super().__init__(*args, observation_space=own, **kwargs)

    def setup(self) -> None:
        """Build the networks."""
        super().setup()
        self.observation_space = self._whole_space  # what RLlib copies and restores this module with

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._masked(batch, super()._forward(self._without_mask(batch), **kwargs))

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._masked(batch, super()._forward_train(self._without_mask(batch), **kwargs))

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """The critic's values [B] of a batch of observations."""
        return super().compute_values(self._without_mask(batch), embeddings)

    def _without_mask(self, batch: dict[str, Any]) -> dict[str, Any]:
        # A new dict: the batch is used again, for example in the next epoch.
        return {**batch, Columns.OBS: batch[Columns.OBS]["observation"]} if self.masks else batch

    def _masked(self, batch: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        if self.masks:
            unavailable = batch[Columns.OBS]["action_mask"] < 0.5
            logits = output[Columns.ACTION_DIST_INPUTS]
            output[Columns.ACTION_DIST_INPUTS] = logits.masked_fill(unavailable, _UNAVAILABLE)
        return output
