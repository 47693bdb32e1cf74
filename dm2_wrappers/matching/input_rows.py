"""What a discriminator sees: the one place that makes its input from what an agent saw and did.

`KINDS` says which parts each kind of input consists of. A new kind is one line there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# The parts of each kind of input, in their order: what the agent saw, what it did, what it saw next.
KINDS: dict[str, tuple[str, ...]] = {
    "state": ("observation",),
    "state-action": ("observation", "action"),
    "transition": ("observation", "next_observation"),
}
_NAMES = {"observation": "feature", "action": "action feature", "next_observation": "next feature"}


class InputRows:
    """Joins the parts of K agents' inputs into rows. An agent's own features come first, then padding.

    Args:
        kind: A key of `KINDS`.
        observation_sizes: Each agent's own number of observation features.
        action_sizes: Each agent's own number of action features; None if the kind has no actions.
        absorbing: Whether a last feature tells the absorbing row (1) from rows of live steps (0).

    Attributes:
        sizes: Each agent's own number of features.
        names: What they are, such as "feature 3". The one that tells the absorbing row is called None.
    """

    def __init__(
        self, kind: str, observation_sizes: Sequence[int], action_sizes: Sequence[int] | None, absorbing: bool
    ) -> None:
        self.parts = KINDS[kind]
        widths = [action_sizes if part == "action" else observation_sizes for part in self.parts]
        own: list[list[int]] = [[] for _ in observation_sizes]  # the columns of all parts that each agent has
        names: list[list[str | None]] = [[] for _ in observation_sizes]
        start = 0
        for part, sizes in zip(self.parts, widths, strict=True):
            assert sizes is not None
            for k, size in enumerate(sizes):
                own[k] += range(start, start + size)
                names[k] += [f"{_NAMES[part]} {i}" for i in range(size)]
            start += max(sizes)
        self.sizes = tuple(len(columns) + absorbing for columns in own)
        self.names = tuple((*each, None) if absorbing else tuple(each) for each in names)
        # Column `start` is one of zeros, for padding and for the feature that tells the absorbing row.
        padded = [columns + [start] * (max(self.sizes) - len(columns)) for columns in own]
        self._columns, self._agents = torch.tensor(padded), torch.arange(len(own))[:, None]
        self._plain = kind == "state" and not absorbing
        self.absorbing_row = torch.zeros(len(own), max(self.sizes))  # [K, W]
        if absorbing:
            self.absorbing_row[self._agents[:, 0], torch.tensor(self.sizes) - 1] = 1.0

    def to(self, device: torch.device) -> InputRows:
        """Move the tensors; returns itself."""
        self._columns, self._agents = self._columns.to(device), self._agents.to(device)
        self.absorbing_row = self.absorbing_row.to(device)
        return self

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Rows [..., K, W] of the parts [..., K, width of the widest agent], in the order of the kind."""
        if self._plain:
            return parts[0]
        zeros = parts[0].new_zeros(*parts[0].shape[:-1], 1)
        return torch.cat([*parts, zeros], -1)[..., self._agents, self._columns]
