"""The paper's Algorithm 1 in its exact order, for on-policy Stable-Baselines3 learners.

Lines 6-12 for one epoch:

====== ============================================================ ===========================================
line   paper                                                        here
====== ============================================================ ===========================================
6      gather M steps of data (s, a, r_env)                         SB3's ``collect_rollouts``; `JointRollout.append`
8, 9   sample demonstrations, update discriminator D_k              ``matcher.update()`` in `JointRollout.gail_rewards`
10     r_GAIL = D_k(s)                                              ``matcher.rewards()`` there, after the update
11     r_mix = r_env + c * r_GAIL                                   `MixRewards._on_rollout_end`
12     update policy pi_k on (s, a, r_mix)                          SB3's ``train()``, right after that callback
====== ============================================================ ===========================================
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from dm2_wrappers.lockstep import JointStep
from dm2_wrappers.matcher import DistributionMatcher
from dm2_wrappers.rollout import Rollout


class JointRollout:
    """Everybody's observations of the present rollout, and the rewards that the discriminators pay for it."""

    def __init__(self, matcher: DistributionMatcher) -> None:
        self.matcher = matcher
        self.metrics: dict[str, float] = {}
        self._steps = Rollout()
        self._rewards: NDArray[np.float32] | None = None

    def append(self, step: JointStep) -> None:
        """Line 6: one more joint step."""
        ended = np.all(step.terminations | step.truncations, axis=1)
        self._steps.append(step.observations, step.alive, ended, step.infos.get("broken"))
        self._rewards = None  # a new rollout has begun

    def clear(self) -> None:
        """Forget the present rollout: it will not be finished."""
        self._steps.clear()
        self._rewards = None

    def gail_rewards(self) -> NDArray[np.float32]:
        """Lines 8-10 for all agents, once a rollout: update the discriminators, then ask the updated ones [T, N, K].

        The first agent to finish its rollout gets here first; when it goes on to train and even to its next rollout, no
        joint step happens until the others have been here, too, and got the same answer.
        """
        if self._rewards is None:
            observations, alive, broken = self._steps.take()
            self.matcher.record(observations, alive, broken=broken)
            self.metrics = self.matcher.update()
            self._rewards = self.matcher.rewards(observations, alive)
        return self._rewards


class MixRewards(BaseCallback):
    """Lines 10-11 for one agent: runs when its rollout is complete and before SB3 trains on it.

    Args:
        rollout: Shared by all agents.
        index: The agent's place on the agent axis.
        agent: Its name, for the logger.
        coefficient: The paper's c, asked for at each rollout.
    """

    def __init__(self, rollout: JointRollout, index: int, agent: str, coefficient: Callable[[], float]) -> None:
        super().__init__()
        self.rollout, self.index, self.agent, self.coefficient = rollout, index, agent, coefficient

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer  # type: ignore[attr-defined]
        gail = self.rollout.gail_rewards()[:, :, self.index]  # [T, N]
        live = buffer.live & ~buffer.broken
        env_reward = buffer.env_rewards[live].mean() if live.any() else 0.0
        # Line 11. Added, not assigned: SB3 has already put the value of what a time limit cut off into these rewards.
        buffer.rewards += np.float32(self.coefficient()) * gail
        buffer.recompute()
        self.logger.record("dm2/env_reward", float(env_reward))
        self.logger.record("dm2/gail_reward", float(gail[live].mean()) if live.any() else 0.0)
        suffix = f"/{self.agent}"
        for name, value in self.rollout.metrics.items():
            if name.endswith(suffix):
                self.logger.record(f"dm2/{name.removesuffix(suffix)}", value)
