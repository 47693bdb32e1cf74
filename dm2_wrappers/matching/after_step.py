"""What followed a joint step: the next observations, and whether the step was an agent's last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.vector.base import joint_ends


@dataclass(frozen=True)
class AfterStep:
    """What followed a step of all agents, before any sub-environment reset itself.

    One joint step has shapes [N, ...], a rollout of them [T, N, ...].

    Attributes:
        observations: float32 [..., K, D]; where an episode ended, its last observation.
        alive: bool [..., K], at those observations.
        ended: bool [...], whether the joint episode ended with the step.
        truncated: bool [..., K], whether a time limit ended the agent's episode and nothing else did.
        time: int64 [...], how many steps of its episode came before this one; None if the caller does not count.
        left: bool [..., K], whether the agent left with the step while others went on; None: none did but those that died.
    """

    observations: NDArray[np.float32]
    alive: NDArray[np.bool_]
    ended: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    time: NDArray[np.int64] | None = None
    left: NDArray[np.bool_] | None = None

    @classmethod
    def of(
        cls,
        terminations: NDArray[np.bool_],
        truncations: NDArray[np.bool_],
        infos: Mapping[str, Any],
        time: NDArray[np.int64] | None = None,
    ) -> AfterStep:
        """From what a `MultiAgentVectorEnv` returned. Arrays are copied, because it may use them again.

        Args:
            terminations: bool [N, K].
            truncations: bool [N, K].
            infos: With ``"final_obs"`` and, where agents can die, ``"final_alive"``.
            time: int64 [N].
        """
        ended = joint_ends(terminations, truncations)
        return cls(
            observations=np.array(infos["final_obs"]),
            alive=np.array(infos.get("final_alive", ~terminations), dtype=bool),
            ended=ended,
            truncated=truncations & ~terminations,
            time=time,
            left=(terminations | truncations) & ~ended[..., None],
        )

    @property
    def goes_on(self) -> NDArray[np.bool_]:
        """Which agents are alive after the step in the same episode, bool [..., K]."""
        goes_on = self.alive & ~self.ended[..., None]
        return goes_on if self.left is None else goes_on & ~self.left

    @classmethod
    def stacked(cls, steps: Sequence[AfterStep]) -> AfterStep:
        """T joint steps as one, [T, N, ...]."""
        columns = {each.name: [getattr(step, each.name) for step in steps] for each in fields(cls)}
        known = {name: column for name, column in columns.items() if not any(part is None for part in column)}
        return cls(**{name: np.stack(column) for name, column in known.items()})


def with_time(after: AfterStep | None, time: NDArray[np.int64]) -> AfterStep | None:
    """The same with this time; None stays None."""
    return None if after is None else replace(after, time=time)
