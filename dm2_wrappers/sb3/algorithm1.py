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
from stable_baselines3.common.callbacks import BaseCallback

from dm2_wrappers.matching import JointRollout


class MixRewards(BaseCallback):
    """Lines 10-11 for one agent: runs after its rollout is complete and before SB3 trains on it.

    Args:
        rollout: Shared by all agents.
        index: The agent's index on the agent axis.
        agent: Its name, for the logger.
        coefficient: Returns the paper's c; called at the end of each rollout.
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
        # Line 11. Added, not assigned: SB3 has already added the bootstrap at time limits to these rewards.
        c = self.coefficient()
        buffer.rewards += np.float32(c) * gail
        buffer.recompute()
        self.logger.record("dm2/coefficient", c)
        self.logger.record("dm2/env_reward", float(env_reward))
        self.logger.record("dm2/gail_reward", float(gail[live].mean()) if live.any() else 0.0)
        self.logger.record("dm2/gail_reward_std", float(gail[live].std()) if live.any() else 0.0)
        suffix = f"/{self.agent}"
        for name, value in self.rollout.metrics.items():
            if name.endswith(suffix):
                self.logger.record(f"dm2/{name.removesuffix(suffix)}", value)
