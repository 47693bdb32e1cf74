"""Each agent's newest live transitions: what "the policy" is to the discriminators (line 6 of Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class TransitionBuffer:
    """K rings, one an agent, of the newest `capacity` live observations each.

    Memory grows as it is needed, up to ``capacity * num_agents * size`` float32.

    Args:
        capacity: Transitions kept of each agent.
        num_agents: K.
        size: D, the number of features.
        device: Where to keep them.
    """

    def __init__(self, capacity: int, num_agents: int, size: int, device: str | torch.device = "cpu") -> None:
        self.capacity = capacity
        # Agent k's n-th transition ever lies in slot n % capacity of row k. [K, slots so far, D]
        self._rows = torch.zeros(num_agents, 0, size, device=device)
        self._added = torch.zeros(num_agents, dtype=torch.int64, device=device)

    @property
    def counts(self) -> Tensor:
        """How many transitions are there of each agent, int64 [K]."""
        return self._added.clamp(max=self.capacity)

    def add(self, observations: Tensor, alive: Tensor) -> None:
        """Append each agent's live observations, in the order of time, then of environment copies.

        Args:
            observations: Float32 [T, N, K, D].
            alive: Bool [T, N, K]; the others are left out.
        """
        agents, _, size = self._rows.shape
        live = alive.reshape(-1, agents)
        totals = live.sum(0)
        rank = live.cumsum(0) - 1  # of a live transition among its agent's new ones
        # Where more than `capacity` come at once, leave out the older: writing a slot twice promises no order.
        step, agent = (live & (rank >= totals - self.capacity)).nonzero(as_tuple=True)
        slot = (self._added[agent] + rank[step, agent]) % self.capacity
        self._added += totals
        self._grow(int(self.counts.max()))
        self._rows[agent, slot] = observations.reshape(-1, agents, size)[step, agent]

    def gather(self, indices: Tensor) -> Tensor:
        """Look transitions up: indices [K, B], 0 an agent's oldest and ``counts - 1`` its newest -> [K, B, D]."""
        agents, slots, size = self._rows.shape
        oldest = self._added - self.counts
        slot = (oldest[:, None] + indices) % self.capacity
        first = torch.arange(0, agents * slots, slots, device=slot.device)
        rows = self._rows.view(-1, size).index_select(0, (first[:, None] + slot).view(-1))
        return rows.view(*indices.shape, size)

    def clear(self) -> None:
        """Forget everything."""
        self._added.zero_()

    def state_dict(self) -> dict[str, Any]:
        """A copy of the contents; size and capacity are not part of it."""
        return {"rows": self._rows[:, : int(self.counts.max())].clone(), "added": self._added.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` of a buffer of the same size and capacity returned.

        Raises:
            ValueError: It is of another number of agents, size or capacity. Nothing has changed then.
        """
        rows, added = state["rows"], state["added"]
        agents, _, size = self._rows.shape
        filled = int(added.clamp(max=self.capacity).max()) if len(added) == agents else -1
        if rows.shape != (agents, filled, size):
            raise ValueError(
                f"this buffer keeps {self.capacity} transitions of {agents} agents with {size} features, "
                f"the saved one holds {tuple(rows.shape)}; make it with the same options"
            )
        self._rows = rows.to(self._rows.device, copy=True)
        self._added = added.to(self._added.device, copy=True)

    def _grow(self, needed: int) -> None:
        """Make room for this many slots; at least doubling keeps the copying in proportion."""
        agents, slots, size = self._rows.shape
        if needed > slots:
            larger = self._rows.new_zeros(agents, min(self.capacity, max(needed, 2 * slots)), size)
            larger[:, :slots] = self._rows
            self._rows = larger
