"""The policy's side of the discriminators' data (line 6 of Algorithm 1): what was recorded of each agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dm2_wrappers.matching.absorbing import kept_in
from dm2_wrappers.matching.step_reader import ReadSteps
from dm2_wrappers.matching.transition_buffer import TransitionBuffer


class Recorded:
    """Each agent's newest live transitions, and how many of them no update has seen.

    Args:
        capacity: How many transitions of each agent to keep.
        num_agents: K.
        size: W, the number of features of an input.
        device: Where to keep them.
        absorbs: Whether to count the absorbing steps that come with the transitions.
        keep: Whether transitions stay after an update, as long as there is room.

    Attributes:
        transitions: The buffer.
        new: Each agent's live transitions in this rollout until it is updated, int64 [K]; may be more than are kept.
    """

    def __init__(self, capacity: int, num_agents: int, size: int, device: torch.device, absorbs: bool, keep: bool) -> None:
        self._shape = capacity, num_agents, size, device, absorbs, keep
        self._keep = keep
        self.transitions = TransitionBuffer(capacity, num_agents, size, device)
        self._remaining = TransitionBuffer(capacity, num_agents, 1, device) if absorbs else None
        self.new = torch.zeros(num_agents, dtype=torch.int64)
        self._over = False  # the rollout: the next steps begin another

    def add(self, steps: ReadSteps) -> None:
        """Append the agents' steps, [T, N, K, ...]."""
        if self._over:
            self._begin()
        if self._remaining is not None and steps.remaining is not None:
            self._remaining.add(steps.remaining[..., None], steps.alive)
        self.transitions.add(steps.rows, steps.trained)
        self.new += steps.trained.sum((0, 1)).cpu()

    def absorbing_steps(self) -> Tensor:
        """How many absorbing steps came with each agent's live steps that are kept, float64 [K]."""
        return torch.zeros(len(self.new), dtype=torch.float64) if self._remaining is None else kept_in(self._remaining)

    def trained(self, chosen: Tensor) -> None:
        """End the rollout, because these agents' discriminators were trained on it, bool [K].

        The other agents may still be trained on it, until new steps come.
        """
        self.new[chosen] = 0
        self._over = True
        if not self.new.any():
            self._begin()

    def _begin(self) -> None:
        """Begin another rollout."""
        self.new.zero_()
        self._over = False
        if not self._keep:
            self.transitions.clear()
            if self._remaining is not None:
                self._remaining.clear()

    def empty(self) -> Recorded:
        """One like this in which nothing is recorded."""
        return Recorded(*self._shape)

    def state_dict(self) -> dict[str, Any]:
        """A copy of the contents."""
        state: dict[str, Any] = {"buffer": self.transitions.state_dict(), "new": self.new.clone()}
        state["over"] = self._over
        return state if self._remaining is None else {**state, "remaining": self._remaining.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: The number of agents, the size or the capacity differ. Load into an `empty` one to keep the contents.
        """
        self.transitions.load_state_dict(state["buffer"])
        if self._remaining is not None:
            self._remaining.load_state_dict(state["remaining"])
        self.new, self._over = state["new"].clone(), bool(state.get("over", False))
