"""What a stored step of an off-policy learner is worth under the present discriminators."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.matching.coefficient import as_array
from dm2_wrappers.sb3.replay_buffer import LiveReplayBuffer
from dm2_wrappers.wrapper import DM2VectorEnv


class PresentPay:
    """The two parts of one agent's mixed reward: env_coefficient * r_env, kept, and c * r_gail, paid anew.

    Args:
        env: The wrapper with matcher and coefficients.
        index: The agent's place on the agent axis.
    """

    def __init__(self, env: DM2VectorEnv, index: int) -> None:
        self._env, self._index = env, index

    def from_env(self, env_rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part that does not change, from the rewards [N] that the wrapper mixes with r_gail."""
        return (self._env.env_coefficient * env_rewards).astype(np.float32)

    def from_discriminator(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part c * r_gail of observations [B, D] that the agent saw while it was alive: [B]."""
        matcher, k = self._env.matcher, self._index
        joint = np.zeros((len(observations), matcher.num_agents, max(matcher.sizes)), np.float32)
        joint[:, k, : observations.shape[1]] = observations
        own = np.zeros(joint.shape[:2], bool)
        own[:, k] = True
        c = as_array(self._env.coefficient, matcher.agents)[k]
        return (c * matcher.rewards(joint, own)[:, k]).astype(np.float32)


class RelabelingReplayBuffer(LiveReplayBuffer):
    """A `LiveReplayBuffer` of environment rewards, to which c * r_gail is added whenever a batch is sampled.

    Rewards after an agent's death, which are credited to the step of death, have no r_gail, so nothing else changes.
    """

    pay: PresentPay | None = None
    _not_saved = (*LiveReplayBuffer._not_saved, "pay")

    def add(
        self,
        obs: NDArray[Any],
        next_obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Store the live steps with the environment's part of their rewards."""
        if self.env is not None and self.pay is not None:
            reward = self.pay.from_env(self.env.last_step.shaped_rewards)
        super().add(obs, next_obs, action, reward, done, infos)

    def _get_samples(self, batch_inds: NDArray[Any], env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env)
        if self.pay is None:
            raise RuntimeError("this replay buffer was loaded while learn() was under way: load it before learn()")
        paid = self.pay.from_discriminator(samples.observations.cpu().numpy())
        return samples._replace(rewards=samples.rewards + self.to_torch(paid[:, None]))
