"""The rollout of all agents, and the rewards that the discriminators pay for it (lines 6 to 10 of Algorithm 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.matching.matcher import DistributionMatcher
from dm2_wrappers.matching.pending_steps import PendingSteps


class JointRollout:
    """Everybody's observations of the present rollout; `gail_rewards` updates the discriminators once for all agents.

    Args:
        matcher: The discriminators.

    Attributes:
        metrics: What the newest ``matcher.update()`` returned.
    """

    def __init__(self, matcher: DistributionMatcher) -> None:
        self.matcher = matcher
        self.metrics: dict[str, float] = {}
        self._steps = PendingSteps()
        self._rewards: NDArray[np.float32] | None = None

    def append(
        self,
        observations: NDArray[np.float32],
        alive: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        broken: NDArray[np.bool_] | None = None,
    ) -> None:
        """Line 6: one more joint step; the arguments are those of `PendingSteps.append`."""
        self._steps.append(observations, alive, ended, broken)
        self._rewards = None  # a new rollout has begun

    def clear(self) -> None:
        """Discard the present rollout, which will not be finished."""
        self._steps.clear()
        self._rewards = None

    def gail_rewards(self) -> NDArray[np.float32]:
        """Lines 8-10 for all agents: update the discriminators once, then pay with the updated ones, [T, N, K].

        The first agent to finish its rollout triggers the update. That agent may go on to train and to start its next
        rollout, but no joint step happens until the others have called this, too, and got the same answer.
        """
        if self._rewards is None:
            observations, alive, broken = self._steps.take()
            self.matcher.record(observations, alive, broken=broken)
            self.metrics = self.matcher.update()
            self._rewards = self.matcher.rewards(observations, alive)
        return self._rewards
