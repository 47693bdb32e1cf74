"""The interface of the K networks for `Discriminators`: they compute logits and the gradient of the loss.

There are two kinds. `StackedMLPs` is fast: stacked tensors, and the gradient penalty of a network with two tanh layers in
closed form. `AutogradNetworks` is general: any networks, by autograd. The tests check that both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

# Added under the square root of the gradient's norm: its derivative at a gradient of 0 is then 0 instead of NaN.
TINY = 1e-12


class Networks(Protocol):
    """The interface of the K networks for `Discriminators`."""

    def parameters(self) -> list[Tensor]:
        """All trained tensors."""

    def tensors(self) -> list[dict[str, Tensor]]:
        """Each agent's own weights by name, as views: writing to them changes the network."""

    def logits(self, observations: Tensor) -> Tensor:
        """[K, M, D] -> [K, M]."""

    def backward(
        self, expert: Tensor, policy: Tensor, alpha: Tensor, active: Sequence[bool], gradient_penalty: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Set ``.grad`` of the active agents' parameters, and ``None`` on the others'.

        Returns:
            Logits of the experts [K, B] and of the policy [K, B], norms of the gradient at the interpolates [K, B].
        """

    def gradient_norms(self) -> Tensor:
        """The norm of each agent's gradient after `backward`, [K]; NaN or infinity if it overflowed, 0 if inactive."""

    def streams(self) -> list[Any]:
        """Each agent's random streams as numbers and tensors; empty for networks that draw nothing."""

    def load_streams(self, streams: Sequence[Any]) -> None:
        """Take over what `streams` returned."""
