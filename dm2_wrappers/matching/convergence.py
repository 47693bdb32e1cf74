"""When a discriminator has converged: Algorithm 2 trains it that far before its agent learns (line 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dm2_wrappers import _checks


@dataclass(frozen=True)
class Convergence:
    """Train until the loss has stopped changing, for at most so many minibatches.

    Minibatches are trained in windows. A discriminator has converged when the mean loss of the newest window differs from
    that of the window before by less than the tolerance. The two windows average out the noise of single minibatches.

    Args:
        tolerance: The largest change of the mean loss that still counts as converged, in nats.
        window: Minibatches per window.
        most: Minibatches after which training ends in any case, at least two windows.

    Raises:
        ValueError: An option out of range.
    """

    tolerance: float = 0.005
    window: int = 25
    most: int = 500

    def __post_init__(self) -> None:
        _checks.number("tolerance", self.tolerance, above=0)
        _checks.integer("window", self.window, least=1)
        _checks.integer("most", self.most, least=2 * self.window)

    def more(self, history: Sequence[Mapping[str, Tensor]], active: Sequence[bool]) -> int:
        """How many minibatches to train next; 0 once all active agents' discriminators have converged, or at the limit.

        Args:
            history: What `Discriminators.update` returned for every minibatch so far.
            active: The agents that are trained, bool [K].
        """
        converged = self._reached(history)
        done = all(flag for flag, trained in zip(converged, active, strict=True) if trained) if converged else False
        return 0 if done else min(self.window, self.most - len(history))

    def metrics(
        self, history: Sequence[Mapping[str, Tensor]], agents: Sequence[str], active: Sequence[bool]
    ) -> dict[str, float]:
        """Both "minibatches" and "converged", for all and as "<name>/<agent>" of the active agents."""
        converged = {
            f"converged/{agent}": float(flag)
            for agent, flag, trained in zip(agents, self._reached(history), active, strict=True)
            if trained
        }
        count = float(len(history))
        minibatches = {name.replace("converged", "minibatches"): count for name in converged}
        return {"minibatches": count, "converged": min(converged.values()), **minibatches, **converged}

    def _reached(self, history: Sequence[Mapping[str, Tensor]]) -> list[bool]:
        """Whether each agent's discriminator has converged; empty before the second window is complete."""
        if len(history) < 2 * self.window:
            return []
        losses = torch.stack([minibatch["loss"] for minibatch in history[-2 * self.window :]])
        before, now = losses.unflatten(0, (2, self.window)).mean(1)
        return ((now - before).abs() < self.tolerance).tolist()
