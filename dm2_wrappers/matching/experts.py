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
from dm2_wrappers.matching.self_imitation import OwnEpisode, SelfImitation


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
        # The team's own best episodes that are shown and each agent's rows of them, by the episode's number.
        self._shown: dict[int, tuple[OwnEpisode, tuple[Tensor, ...]]] = {}
        self._given: tuple[Tensor, ...] = ()  # each agent's rows of the demonstrations
        self.rows: Tensor = torch.zeros(0, max(rows.sizes), device=device)
        self.counts = [0] * len(agents)
        if demonstrations is not None:
            each = self._of(demonstrations)
            self.rows, self.counts = self._checks.stacked(each, any_scale=any_scale), [len(own_rows) for own_rows in each]
            self._given = self.rows.split(self.counts)

    def renew(self) -> bool:
        """Take in the team's own best episodes, if they have changed; whether they have."""
        if self._own is None:
            return False
        self._own.take()
        now = self._own.taken_episodes
        if list(now) == list(self._shown) and all(self._is_shown(*each) for each in now.items()):
            return False
        self._show()
        return True

    def restored(self) -> None:
        """Show the team's own episodes that were taken in last, after their state was loaded."""
        if self._own is not None:
            self._show()

    def _is_shown(self, number: int, episode: OwnEpisode) -> bool:
        # After another state was loaded, the number may be that of another episode.
        return number in self._shown and self._shown[number][0] is episode

    def _show(self) -> None:
        """Show the own episodes that are taken in; only those that are new are read."""
        assert self._own is not None
        taken = self._own.taken_episodes
        new = [number for number, episode in taken.items() if not self._is_shown(number, episode)]
        read = dict(zip(new, self._rows_of_episodes(self._own.taken(new)), strict=True)) if new else {}
        self._shown = {
            number: (episode, read[number] if number in read else self._shown[number][1])
            for number, episode in taken.items()
        }
        sources = [*([self._given] if self._given else []), *(rows for _, rows in self._shown.values())]
        of_agents = list(zip(*sources, strict=True))
        counts = [sum(map(len, of_agent)) for of_agent in of_agents]
        if counts and all(counts):  # as long as one agent has nothing to imitate, the agents have nothing yet
            self.rows, self.counts = torch.cat([rows for of_agent in of_agents for rows in of_agent]), counts
        else:
            self.rows, self.counts = self.rows[:0], [0] * len(self.counts)

    def _rows_of_episodes(self, episodes: Any) -> list[tuple[Tensor, ...]]:
        """Each agent's rows of each episode of the team's own."""
        each, starts = self._of(episodes), episodes.offsets[0, :-1]  # concurrent: the same for all agents
        lengths = np.add.reduceat(self._live(episodes), starts, axis=0, dtype=np.int64)  # [episodes, K]
        stacked = self._checks.stacked(each, any_scale=self._any_scale, some_empty=True)
        of_agents = stacked.split([len(rows) for rows in each])
        # Copies: a view would keep the rows of all these episodes in memory as long as one of them is shown.
        parts = [[each.clone() for each in rows.split(lengths[:, k].tolist())] for k, rows in enumerate(of_agents)]
        return list(zip(*parts, strict=True))

    def absorbing_steps(self, absorbing: AbsorbingEnds) -> Tensor:
        """How many absorbing steps each agent has, int64 [K]."""
        return torch.from_numpy(np.sum([absorbing.of_experts(source) for source in self._sources()], axis=0))

    def _sources(self) -> list[Any]:
        own = None if self._own is None else self._own.taken()
        return [source for source in (self._demonstrations, own) if source is not None]

    def _live(self, demonstrations: Any) -> NDArray[np.bool_]:
        """Which steps have a row, [T, K].

        Steps whose next observation is part of the input count if the agent lives on in the same episode: demonstrations
        lack the observation after an episode's last step.
        """
        live: NDArray[np.bool_] = demonstrations.alive
        if "next_observation" in self._joining.parts:
            live = live & np.roll(live, -1, axis=0)
            for k, ends in enumerate(demonstrations.offsets[:, 1:]):
                live[ends - 1, k] = False  # an episode's last step
        return live

    def _of(self, demonstrations: Any) -> list[NDArray[np.float32]]:
        """Each agent's rows [n_k, W_k] of its live steps in demonstrations."""
        parts, sizes = self._joining.parts, self._joining.sizes
        if parts == ("observation",):
            observations = [demonstrations.observations(agent) for agent in demonstrations.agents]
            wider = [size - own_size for size, own_size in zip(sizes, demonstrations.sizes, strict=True)]
            return [np.pad(each, ((0, 0), (0, w))) if w else each for each, w in zip(observations, wider, strict=True)]
        seen = demonstrations.padded_observations
        available = {"observation": seen}
        if self._coding is not None:
            available["action"] = self._coding.features(demonstrations.actions, demonstrations.alive)
        if "next_observation" in parts:
            available["next_observation"] = np.roll(seen, -1, axis=0)
        live, device = self._live(demonstrations), self.rows.device
        joined = self._joining.joined([torch.from_numpy(np.array(available[part], np.float32)).to(device) for part in parts])
        return [each[live[:, k], k, :size] for each in (joined.cpu().numpy(),) for k, size in enumerate(sizes)]
