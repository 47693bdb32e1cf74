"""Each agent's newest live transitions: the policy's side of the discriminators' data (line 6 of Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class TransitionBuffer:
    """K ring buffers, one per agent, of the newest `capacity` live observations each.

    Memory grows with use, up to ``capacity * num_agents * size`` float32.

    Args:
        capacity: How many transitions of each agent to keep.
        num_agents: K.
        size: D, the number of features.
        device: Where to keep them.
    """

    def __init__(self, capacity: int, num_agents: int, size: int, device: str | torch.device = "cpu") -> None:
        self.capacity = capacity
        # Agent k's n-th transition ever is in slot n % capacity of row k. [K, slots so far, D]
        self._rows = torch.zeros(num_agents, 0, size, device=device)
        self._added = torch.zeros(num_agents, dtype=torch.int64, device=device)

    @property
    def counts(self) -> Tensor:
        """How many transitions of each agent the buffer holds, int64 [K]."""
        return self._added.clamp(max=self.capacity)

    def add(self, observations: Tensor, alive: Tensor) -> None:
        """Append each agent's live observations, ordered by time, then by sub-environment.

        Args:
            observations: Float32 [T, N, K, D].
            alive: Bool [T, N, K]; observations of dead agents are left out.
        """
        agents, _, size = self._rows.shape
        live = alive.reshape(-1, agents)
        totals = live.sum(0)
        rank = live.cumsum(0) - 1  # position of a live transition among its agent's new ones
        # If more than `capacity` come at once, skip the older ones: the order of two writes to one slot is undefined.
        step, agent = (live & (rank >= totals - self.capacity)).nonzero(as_tuple=True)
        slot = (self._added[agent] + rank[step, agent]) % self.capacity
        self._added += totals
        self._grow(int(self.counts.max()))
        self._rows[agent, slot] = observations.reshape(-1, agents, size)[step, agent]

    def gather(self, indices: Tensor) -> Tensor:
        """Transitions at indices [K, B], where 0 is an agent's oldest and ``counts - 1`` its newest: [K, B, D]."""
        agents, slots, size = self._rows.shape
        oldest = self._added - self.counts
        slot = (oldest[:, None] + indices) % self.capacity
        first = torch.arange(0, agents * slots, slots, device=slot.device)
        rows = self._rows.view(-1, size).index_select(0, (first[:, None] + slot).view(-1))
        return rows.view(*indices.shape, size)

    def clear(self) -> None:
        """Discard everything."""
        self._added.zero_()

    def state_dict(self) -> dict[str, Any]:
        """A copy of the contents; size and capacity are not part of it."""
        return {"rows": self._rows[:, : int(self.counts.max())].clone(), "added": self._added.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` of a buffer of the same size and capacity returned.

        Raises:
            ValueError: The number of agents, the size or the capacity differ. Nothing has changed then.
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
        """Make room for this many slots. At least doubling keeps the total cost of copying linear."""
        agents, slots, size = self._rows.shape
        if needed > slots:
            larger = self._rows.new_zeros(agents, min(self.capacity, max(needed, 2 * slots)), size)
            larger[:, :slots] = self._rows
            self._rows = larger
