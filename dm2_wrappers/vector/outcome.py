"""What the agents of one environment see, and what their joint step led to, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Seen:
    """The agents' observations before their next actions, in one environment. Rows of absent agents are 0."""

    observations: NDArray[np.float32]  # [K, D]
    present: NDArray[np.bool_]  # [K]
    alive: NDArray[np.bool_]  # [K]
    action_mask: NDArray[np.bool_] | None  # [K, A]; None where actions are continuous


@dataclass(frozen=True)
class Outcome:
    """The results of one joint step, before any reset."""

    seen: Seen
    final_observations: NDArray[np.float32]  # [K, D], also of agents whose episode ended
    final_alive: NDArray[np.bool_]  # [K]
    rewards: NDArray[np.float64]  # [K]; those of agents that acted or have just joined
    env_rewards: NDArray[np.float64] | None  # [K], where a wrapper that shapes rewards says in infos what they were
    terminations: NDArray[np.bool_]  # [K], also true for absent agents
    truncations: NDArray[np.bool_]  # [K]
    broken: bool
    won: bool | None  # None where the environment does not report wins

    @property
    def over(self) -> bool:
        """Whether the joint episode ended with this step."""
        return not self.seen.present.any()


NEWS = frozenset({"battle_won", "broken"})  # what `episode_news` looks for in an info


def episode_news(infos: Iterable[Any]) -> tuple[bool, bool | None]:
    """Whether the simulator broke the episode, and whether it was won; None where no info reports wins.

    Args:
        infos: All infos of a step, also those that belong to no agent; what is not a dict is ignored.
    """
    everybody = [info for info in infos if type(info) is dict or isinstance(info, Mapping)]
    wins = [bool(info["battle_won"]) for info in everybody if "battle_won" in info]
    return any(bool(info.get("broken", False)) for info in everybody), any(wins) if wins else None
