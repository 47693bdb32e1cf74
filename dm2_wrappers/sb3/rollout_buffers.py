"""SB3 rollout buffers that exclude steps after an agent's death and steps of failed episodes.

In most battles some agents die before the episode ends. If a dead agent stays until the end (``death="absorb"``), SB3 would
train its policy and its critic on its zero observations and meaningless actions. With these buffers, minibatches contain
only the steps at which the agent was alive. Rewards that the team earns after an agent's death are not lost: they are part
of the return of the step at which it died. ``after_death`` sets how they are credited:

* "earned" (default): the rewards after a death are credited with generalized advantage estimation, as in SB3. The critic
  never sees dead steps, and all dead observations are equal. So the value of a dead step is one number per agent and
  rollout: the mean over dead steps of the discounted reward that followed.
* "mean": the return after a death is one number, the mean over the rollout's deaths of the discounted reward that
  followed. What follows a death depends mostly on the other agents, so returns are much less noisy this way. But an agent
  gets no credit for rewards that its death made possible, and teams learn to survive until the time limit.
* "critic": dead steps stay in the minibatches, as in SB3, and the critic learns their value. With masks (MaskablePPO) a dead
  agent's only available action has no gradient, so the policy learns nothing from dead steps.

Steps of an episode in which the simulator failed are left out too, if they are in the current rollout. Steps of the same
episode in an earlier rollout have already been trained on. Steps at which the agent was absent (it has left, or has not
joined yet) are never in a minibatch.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from stable_baselines3.common.buffers import RolloutBuffer

from dm2_wrappers.sb3.vec_env import AgentVecEnv


class _LiveSteps:
    """Mixin over a ``RolloutBuffer``: knows at which steps the agent was alive; see the module."""

    env: AgentVecEnv
    rewards: NDArray[np.float32]  # [T, N]
    values: NDArray[np.float32]  # [T, N]
    advantages: NDArray[np.float32]  # [T, N]
    generator_ready: bool
    # Of each step, [T, N]; see `AgentStep`.
    present: NDArray[np.bool_]
    live: NDArray[np.bool_]
    dead_at_time_limit: NDArray[np.bool_]
    env_rewards: NDArray[np.float32]
    broken: NDArray[np.bool_]  # it belongs to an episode that the simulator broke
    after_death = "earned"
    dead_value = 0.0  # the newest estimate of the value of being dead, or of dying

    def reset(self) -> None:
        super().reset()
        shape = self.buffer_size, self.n_envs
        self.present, self.live = np.ones(shape, bool), np.ones(shape, bool)
        self.dead_at_time_limit, self.broken = np.zeros(shape, bool), np.zeros(shape, bool)
        self.env_rewards = np.zeros(shape, np.float32)

    def add(self, *args: Any, **kwargs: Any) -> None:
        step = self.env.last_step
        self.present[self.pos], self.live[self.pos] = step.present, step.alive
        self.dead_at_time_limit[self.pos] = step.dead_at_time_limit
        self.env_rewards[self.pos] = step.env_rewards
        for i in np.flatnonzero(step.steps_to_discard):
            self.broken[max(0, self.pos + 1 - step.steps_to_discard[i]) : self.pos + 1, i] = True
        super().add(*args, **kwargs)
        self.env.mark_episode_starts()

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: NDArray[Any]) -> None:
        self.last_values, self.last_dones = last_values.clone(), dones.copy()
        self.last_alive = self.env.last_step.alive_next.copy()
        self.recompute()

    def recompute(self) -> None:
        """Returns and advantages from ``rewards`` as they are now, with the values of the rollout's end."""
        if not self.learnable().any():
            # SB3's train() needs at least one minibatch: it gets one, and `PauseWithoutSteps` undoes its update.
            self.advantages, self.returns = np.zeros_like(self.advantages), self.values.copy()
            return
        all_lived = self.live.all() and self.last_alive.all() and not self.dead_at_time_limit.any()
        if self.after_death == "critic" or all_lived:
            super().compute_returns_and_advantage(self.last_values, self.last_dones)
            return
        self.dead_value = self._value_of_death()
        self.values[~self.live] = self.dead_value
        last = self.last_values.detach().cpu().numpy().flatten()
        last_values = np.where(self.last_alive, last, self.dead_value).astype(np.float32)
        rewards = self.rewards
        if self.dead_at_time_limit.any():
            # SB3 has not added a bootstrap to these rewards: add the value of being dead.
            self.rewards = rewards + np.float32(self.gamma * self.dead_value) * self.dead_at_time_limit
        if self.after_death == "mean":
            self.rewards = self._with_constant_dead_value(last_values)
        super().compute_returns_and_advantage(torch.as_tensor(last_values), self.last_dones)
        self.rewards = rewards

    def _value_of_death(self) -> float:
        """The value of being dead, or with ``after_death="mean"`` the value of dying.

        The value of being dead is the v that equals the mean over all dead steps of the discounted reward that followed,
        where v itself stands for the rest of an episode that goes on beyond the rollout or its time limit. The value of
        dying is that mean over deaths only. Without a dead step, the previous rollout's value is kept.
        """
        last = self.last_values.detach().cpu().numpy().flatten()
        # The value of what follows is earned + unknown * v; nothing is unknown past the end of an episode.
        earned, unknown = np.where(self.last_alive, last, 0.0), (~self.last_alive).astype(np.float64)
        goes_on = 1.0 - self.last_dones.astype(np.float64)
        dead_earned, dead_unknown = np.zeros(self.rewards.shape), np.zeros(self.rewards.shape)
        for t in reversed(range(len(self.rewards))):
            unknown = self.gamma * np.where(self.dead_at_time_limit[t], 1.0, goes_on * unknown)
            earned = self.rewards[t] + self.gamma * goes_on * earned
            # The value of an agent that comes back to life is its critic's.
            unknown, earned = np.where(self.live[t], 0.0, unknown), np.where(self.live[t], self.values[t], earned)
            dead_earned[t], dead_unknown[t] = earned, unknown
            goes_on = 1.0 - self.episode_starts[t]
        dead = self.present & ~self.live & ~self.broken
        weight = (1.0 - dead_unknown[dead]).sum()
        being_dead = dead_earned[dead].sum() / weight if weight > 0.0 else self.dead_value
        died = dead.copy()  # dead, and alive one step before
        died[0] = False
        died[1:] &= self.live[:-1] & (self.episode_starts[1:] == 0.0)
        if self.after_death == "earned" or not died.any():
            return float(being_dead)
        return float((dead_earned[died] + dead_unknown[died] * being_dead).mean())

    def _with_constant_dead_value(self, last_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rewards, but those of dead steps keep their value constant, so no advantage flows back through them."""
        following = np.concatenate([self.values[1:], last_values[None]])
        over = np.concatenate([self.episode_starts[1:], self.last_dones[None]])
        constant = self.dead_value - self.gamma * (1.0 - over) * following
        return np.where(self.live, self.rewards, constant).astype(np.float32)

    def learnable(self) -> NDArray[np.bool_]:
        """The steps that the learner learns from, [T, N]."""
        return (self.present if self.after_death == "critic" else self.live) & ~self.broken

    def _flat_learnable(self) -> NDArray[np.bool_]:
        return RolloutBuffer.swap_and_flatten(self.learnable())[:, 0]


class _LiveMinibatches(_LiveSteps):
    """Mixin: minibatches of learnable steps only, as many as SB3 would make of all steps, of nearly equal size."""

    _arrays: tuple[str, ...] = ("observations", "actions", "values", "log_probs", "advantages", "returns")

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        if self.learnable().all():
            yield from super().get(batch_size)
            return
        if not self.generator_ready:
            for name in self._arrays:
                setattr(self, name, RolloutBuffer.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        rows = np.flatnonzero(self._flat_learnable())
        if not len(rows):
            yield self._get_samples(np.array([0, 1 % len(self.values)]))  # see recompute
            return
        rows = np.random.permutation(rows)  # noqa: NPY002  the learner's own stream, as in SB3
        parts = 1 if batch_size is None else -(-self.live.size // batch_size)
        for part in np.array_split(rows, min(parts, max(1, len(rows) // 2))):
            # A single step has no standard deviation: some of SB3's algorithms would normalise its advantage to NaN.
            yield self._get_samples(part if len(part) > 1 else part.repeat(2))


class LiveRolloutBuffer(_LiveMinibatches, RolloutBuffer):
    """For PPO, A2C and TRPO."""


class LiveMaskableRolloutBuffer(_LiveMinibatches, MaskableRolloutBuffer):
    """For MaskablePPO."""

    _arrays = (*_LiveMinibatches._arrays, "action_masks")


class LiveRecurrentRolloutBuffer(_LiveSteps, RecurrentRolloutBuffer):
    """For RecurrentPPO: sequences stay whole, and the mask of its losses excludes steps that are not learnable."""

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        """Sequences with a mask of the learnable steps; minibatches without such a step are left out."""
        samples, yielded = None, False
        for samples in super().get(batch_size):
            if samples.mask.sum() > 1:
                yielded = True
                yield samples
        if not yielded and samples is not None:
            yield samples._replace(mask=torch.ones_like(samples.mask))  # see recompute

    def _get_samples(self, batch_inds: NDArray[Any], env_change: NDArray[Any], env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env_change, env)
        if self.learnable().all():
            return samples
        learnable = self._flat_learnable()[batch_inds].astype(np.float32)
        return samples._replace(mask=self.pad_and_flatten(learnable))
