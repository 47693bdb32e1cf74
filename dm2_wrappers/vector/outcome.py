"""What the agents of one environment see, and what their joint step led to, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.vector.spaces import as_array, shown


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
    won: bool | None  # None: not reported

    @property
    def over(self) -> bool:
        """Whether the joint episode ended with this step."""
        return not self.seen.present.any()


NEWS = frozenset({"battle_won", "broken"})  # what `episode_news` looks for in an info


def episode_news(infos: Mapping[Any, Any]) -> tuple[bool, bool | None]:
    """Whether the simulator broke the episode, and whether it was won; None where no info reports wins.

    Args:
        infos: All infos of a step, also those that belong to no agent; what is not a dict is ignored.

    Raises:
        ValueError: A report that is neither True, False nor None.
    """
    everybody = [(who, info) for who, info in infos.items() if type(info) is dict or isinstance(info, Mapping)]
    broken = [_report("broken", who, info) for who, info in everybody if "broken" in info]
    wins = [_report("battle_won", who, info) for who, info in everybody if "battle_won" in info]
    known = [won for won in wins if won is not None]
    return any(broken), any(known) if known else None


def _report(name: str, who: Any, info: Mapping[str, Any]) -> bool | None:
    """True, False or None (not reported)."""
    value = info[name]
    if value is None or value is True or value is False:
        return value
    array = as_array(value)
    if array.size != 1 or array.dtype.kind not in "biuf" or array.reshape(()) not in (0, 1):
        raise ValueError(f"{name}={shown(value)} in the infos of {who!r}: expected True, False or None (not reported)")
    return bool(array.reshape(()))
