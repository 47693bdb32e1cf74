"""Joint steps that a matcher has not recorded yet, and which of them belong to episodes that broke."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.matching.after_step import AfterStep


class PendingSteps:
    """Collects joint steps of N sub-environments and K agents until a matcher records them."""

    def __init__(self) -> None:
        self._observations: list[NDArray[np.float32]] = []
        self._alive: list[NDArray[np.bool_]] = []
        self._ended: list[NDArray[np.bool_]] = []
        self._broken: list[NDArray[np.bool_]] = []
        self._actions: list[NDArray[Any]] = []
        self._after: list[AfterStep] = []

    def __len__(self) -> int:
        return len(self._observations)

    @property
    def num_envs(self) -> int:
        """N of the steps that are here."""
        return len(self._ended[0]) if self._ended else 0

    def append(
        self,
        observations: NDArray[np.float32],
        alive: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        broken: NDArray[np.bool_] | None = None,
        *,
        actions: NDArray[Any] | None = None,
        after: AfterStep | None = None,
    ) -> None:
        """Add one joint step.

        Args:
            observations: Before the action, [N, K, D].
            alive: At those observations, [N, K].
            ended: Which sub-environments ended their joint episode with this step, [N].
            broken: Which of these episodes the simulator broke, [N]; none by default.
            actions: What the agents did, [N, K] or [N, K, A]; given at every step or at none.
            after: What followed, likewise.
        """
        self._observations.append(observations)
        self._alive.append(alive)
        self._ended.append(ended)
        self._broken.append(np.zeros_like(ended) if broken is None else np.array(broken))
        if actions is not None:
            self._actions.append(actions)
        if after is not None:
            self._after.append(after)

    def stacked(self) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """All steps, which stay here until `clear`.

        Returns:
            Observations [T, N, K, D], alive [T, N, K], which steps [T, N] to discard, and those of "actions" [T, N, K] or
            [T, N, K, A] and "after" that were given.
        """
        more: dict[str, Any] = {}
        if len(self._actions) == len(self):
            more["actions"] = np.stack(self._actions)
        if len(self._after) == len(self):
            more["after"] = AfterStep.stacked(self._after)
        return np.stack(self._observations), np.stack(self._alive), self._discarded(), more

    def _discarded(self) -> NDArray[np.bool_]:
        """The steps [T, N] of episodes that broke."""
        ended, ended_broken = np.stack(self._ended), np.stack(self._broken)
        broken = np.zeros_like(ended)
        discard = np.zeros(ended.shape[1], dtype=bool)
        for t in reversed(range(len(ended)) if ended_broken.any() else range(0)):
            # If an episode broke, all its steps are discarded. One that has not ended yet is kept.
            discard = np.where(ended[t], ended_broken[t], discard)
            broken[t] = discard
        return broken

    def cut(self) -> None:
        """Mark that the environment was reset in mid-episode: later steps belong to other episodes."""
        if self._ended:
            self._ended[-1] = np.ones_like(self._ended[-1])

    def skip(self, ended: NDArray[np.bool_], broken: NDArray[np.bool_] | None = None) -> None:
        """A joint step is left out; if it ended an episode, later steps belong to another. Arguments as for `append`."""
        if self._ended:
            ended = ended & ~self._ended[-1]
            self._ended[-1] = self._ended[-1] | ended
            if broken is not None:
                self._broken[-1] = self._broken[-1] | (broken & ended)

    def clear(self) -> None:
        """Discard everything."""
        for steps in (self._observations, self._alive, self._ended, self._broken, self._actions, self._after):
            steps.clear()
