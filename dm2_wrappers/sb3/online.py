"""What an online run logs of DM2 for each agent, under the names that an exact run has (`algorithm1.MixRewards`)."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback

from dm2_wrappers.lockstep import Lockstep
from dm2_wrappers.wrapper import DM2VectorEnv


class LogOnline(BaseCallback):
    """Logs the newest metrics of one agent's discriminator and the means, since the last log, of both its rewards.

    Args:
        env: The wrapper that pays the rewards.
        lockstep: Knows the last joint step.
        index: The agent's place on the agent axis.
        agent: Its name.
    """

    def __init__(self, env: DM2VectorEnv, lockstep: Lockstep, index: int, agent: str) -> None:
        super().__init__()
        self.env, self.lockstep, self.index, self.agent = env, lockstep, index, agent
        self._sums = {"dm2/env_reward": 0.0, "dm2/gail_reward": 0.0}
        self._count = 0

    def _on_step(self) -> bool:
        step = self.lockstep.last_step
        assert step is not None
        logged = "dm2/env_reward" not in self.logger.name_to_value  # SB3's logger forgets what it has written
        if logged:
            self._sums, self._count = dict.fromkeys(self._sums, 0.0), 0
        live = step.alive[:, self.index]
        self._count += int(live.sum())
        for name in self._sums:
            self._sums[name] += float(step.infos[name.removeprefix("dm2/")][live, self.index].sum())
            if self._count:
                self.logger.record(name, self._sums[name] / self._count)
        suffix = f"/{self.agent}"
        for name, value in self.env.metrics.items():
            if name.endswith(suffix):
                self.logger.record(f"dm2/{name.removesuffix(suffix)}", value)
        return True
