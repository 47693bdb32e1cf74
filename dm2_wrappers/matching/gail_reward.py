"""The GAIL reward (line 10 of Algorithm 1): a function of the discriminators' logits, less an offset for each agent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dm2_wrappers.matching.discriminators import Discriminators
from dm2_wrappers.matching.transition_buffer import TransitionBuffer

# Logit -> reward. D is sigmoid(logit), so -log(1 - D) is softplus(logit) and log D is -softplus(-logit).
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda logit: logit,
    "-log(1-D)": F.softplus,
    "log D": F.logsigmoid,
}
_LARGEST_SQUARE = 1e36  # then no number is beyond 1e18
_ROWS = 4096  # transitions of each agent per block in `moments`: bounds the memory


class GailReward:
    """Computes r_gail from observations, in PyTorch's standard modes.

    Args:
        discriminators: The discriminators of K agents.
        reward: A key of `FUNCTIONS`.

    Attributes:
        offsets: What is subtracted from each agent's reward, float64 [K].
    """

    def __init__(self, discriminators: Discriminators, reward: str) -> None:
        self._discriminators = discriminators
        self._function = FUNCTIONS[reward]
        self.offsets = torch.zeros(len(discriminators.agents), dtype=torch.float64)
        self._offsets_read: Tensor | None = None  # the offsets that `_offset_array` was made from
        self._offset_array: NDArray[np.float32]

    def of(self, observations: Tensor) -> Tensor:
        """Each agent's reward: [..., K, D] -> [..., K]."""
        return self._function(self._discriminators.logits(observations)) - self.offsets.to(observations)

    def of_step(self, observations: NDArray[np.float32], alive: NDArray[np.bool_]) -> NDArray[np.float32] | None:
        """What `of` gives for one joint observation, up to float32 rounding, with a tenth of the work; 0 for the dead.

        It uses NumPy alone, so PyTorch's modes do not matter.

        Args:
            observations: [K, D].
            alive: [K].

        Returns:
            [K]; None if only `of` can compute it, or if a number is not finite or beyond 1e18.
        """
        if self._function is not FUNCTIONS["logit"] or self._discriminators.replaces_logits:
            return None
        flat = observations.ravel()
        with np.errstate(all="ignore"):  # whatever the caller's settings are
            if not flat.dot(flat) <= _LARGEST_SQUARE:
                return None
            logits = self._discriminators.logits_of_step(observations)
        if logits is None:
            return None
        if self._offsets_read is not self.offsets:
            self._offsets_read, self._offset_array = self.offsets, self.offsets.numpy().astype(np.float32)
        paid = np.where(alive, logits - self._offset_array, np.float32(0))
        return paid if np.isfinite(paid).all() else None

    def moments(self, buffer: TransitionBuffer, new: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each agent's reward without offset, over its newest transitions.

        Args:
            buffer: Where the transitions are.
            new: How many of them count, at most as many as the buffer holds, int64 [K].

        Returns:
            Float64 [K] each; 0 for agents without new transitions.
        """
        counts = buffer.counts.cpu()
        age = torch.arange(int(new.max()))  # 0: an agent's newest transition
        total, squares = torch.zeros(2, len(new), dtype=torch.float64)
        for block in age.split(_ROWS):
            indices = (counts[:, None] - 1 - block).clamp(min=0)
            rows = buffer.gather(indices.to(self._discriminators.device))
            paid = self._function(self._discriminators.logits(rows.transpose(0, 1))).T.cpu()
            paid = torch.where(block < new[:, None], paid.double(), 0.0)
            total += paid.sum(1)
            squares += paid.square().sum(1)
        number = new.clamp(min=1)
        mean = total / number
        return mean, (squares / number - mean.square()).clamp(min=0).sqrt()
