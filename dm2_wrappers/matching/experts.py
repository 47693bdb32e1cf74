"""The experts' side of the discriminators' inputs: demonstrations, the team's own best episodes, or both."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dm2_wrappers.matching.absorbing import AbsorbingEnds
from dm2_wrappers.matching.action_coding import ActionCoding
from dm2_wrappers.matching.input_rows import InputRows
from dm2_wrappers.matching.inputs import AgentInputs
from dm2_wrappers.matching.self_imitation import SelfImitation


class Experts:
    """All agents' demonstrated rows.

    Args:
        demonstrations: The experts'; None for the team's own episodes alone.
        own: The team's own episodes; None without self-imitation.
        agents: The agents' names.
        rows: Joins the parts of an input.
        coding: Of the actions; None if the input has none.
        device: Where tensors go.
        any_scale: Do not warn about features that are very large, because they will be standardized.

    Attributes:
        rows: One agent after the other, [sum of n_k, W].
        counts: How many of them belong to each agent, n_k; all 0 as long as there is nothing to imitate.
    """

    def __init__(
        self,
        demonstrations: Any,
        own: SelfImitation | None,
        agents: tuple[str, ...],
        rows: InputRows,
        coding: ActionCoding | None,
        device: torch.device,
        any_scale: bool = False,
    ) -> None:
        self._any_scale = any_scale
        self._demonstrations, self._own, self._joining, self._coding = demonstrations, own, rows, coding
        self._checks = AgentInputs(agents, rows.sizes, device)
        self._best: Any = None  # the team's own best episodes as demonstrations
        self._shown: list[int] = []  # their numbers
        self.rows: Tensor = torch.zeros(0, max(rows.sizes), device=device)
        self.counts = [0] * len(agents)
        if demonstrations is not None:
            each = self._of(demonstrations)
            self.rows, self.counts = self._checks.stacked(each, any_scale=any_scale), [len(own_rows) for own_rows in each]

    def renew(self) -> bool:
        """Take in the team's own best episodes, if they have changed; whether they have."""
        if self._own is None:
            return False
        self._own.take()
        if self._own.taken_numbers == self._shown:
            return False
        self.restored()
        return True

    def restored(self) -> None:
        """Show the team's own episodes that were taken in last, after their state was loaded."""
        if self._own is None:
            return
        self._shown, self._best = self._own.taken_numbers, self._own.taken()
        each = [self._of(source) for source in self._sources()]
        joined = [np.concatenate(of_agent) for of_agent in zip(*each, strict=True)]
        counts = [len(of_agent) for of_agent in joined]
        if counts and all(counts):  # as long as one agent has nothing to imitate, the agents have nothing yet
            self.rows, self.counts = self._checks.stacked(joined, any_scale=self._any_scale), counts
        else:
            self.rows, self.counts = self.rows[:0], [0] * len(self.counts)

    def absorbing_steps(self, absorbing: AbsorbingEnds) -> Tensor:
        """How many absorbing steps each agent has, int64 [K]."""
        return torch.from_numpy(np.sum([absorbing.of_experts(source) for source in self._sources()], axis=0))

    def _sources(self) -> list[Any]:
        return [source for source in (self._demonstrations, self._best) if source is not None]

    def _of(self, demonstrations: Any) -> list[NDArray[np.float32]]:
        """Each agent's rows [n_k, W_k] of its live steps in demonstrations.

        Steps whose next observation is part of the input count if the agent lives on in the same episode: demonstrations
        lack the observation after an episode's last step.
        """
        parts, sizes = self._joining.parts, self._joining.sizes
        if parts == ("observation",):
            observations = [demonstrations.observations(agent) for agent in demonstrations.agents]
            wider = [size - own_size for size, own_size in zip(sizes, demonstrations.sizes, strict=True)]
            return [np.pad(each, ((0, 0), (0, w))) if w else each for each, w in zip(observations, wider, strict=True)]
        seen, alive, offsets = demonstrations.padded_observations, demonstrations.alive, demonstrations.offsets
        live = alive & (np.arange(len(alive))[:, None] < offsets[:, -1])
        available = {"observation": seen}
        if self._coding is not None:
            available["action"] = self._coding.features(demonstrations.actions, live)
        if "next_observation" in parts:
            available["next_observation"] = np.roll(seen, -1, axis=0)
            live = live & np.roll(alive, -1, axis=0)
            for k, ends in enumerate(offsets[:, 1:]):
                live[ends - 1, k] = False  # an episode's last step
        device = self.rows.device
        joined = self._joining.joined([torch.from_numpy(np.array(available[part], np.float32)).to(device) for part in parts])
        return [each[live[:, k], k, :size] for each in (joined.cpu().numpy(),) for k, size in enumerate(sizes)]
