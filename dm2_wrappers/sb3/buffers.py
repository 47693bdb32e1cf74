"""SB3's buffers, from which neither the dead nor broken episodes teach.

In most battles an agent dies before its team has finished. Where it then stays until the end (``death="absorb"``), SB3
would go on training its policy and its critic on a dead agent's zero observation and meaningless action. Here a step
on which the agent was dead is in no minibatch. What the team earns after its death is not lost: it is the return of the
step on which it died.

On-policy (PPO, A2C, MaskablePPO, TRPO, RecurrentPPO) there are two ways to count what comes after, ``after_death``:

* "earned" (default): rewards go on flowing back through the dead steps by generalised advantage estimation, as in SB3. Only
  the value of a dead step is not the critic's, which never sees one, but the value of being dead: one number an agent and
  rollout (being dead always looks the same), the mean over dead steps of the discounted reward that followed.
* "mean": death is followed by one number, the mean over the rollout's deaths of the discounted reward that followed. What
  followed one death in particular is mostly the others' doing, and without it returns are much less noisy; but an agent then
  has no credit for what its sacrifice made possible, and teams learn to survive and to run into time limits.

A third, "critic", leaves the dead in, as SB3 does: the critic learns what being dead is worth. With masks (MaskablePPO) a
dead agent's only legal action has no gradient, so that even there the policy learns nothing from being dead.

The steps of an episode that the simulator broke are in no minibatch either, as far as they are in the present rollout; what
an earlier rollout had of the same episode has been learnt from by then.

Off-policy (DQN, QR-DQN, SAC, ...): the replay buffer holds living steps only; death ends the stored episode, and the
discounted reward that follows is added to the step of death as it comes in. When an episode breaks, its steps are removed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer

from dm2_wrappers.sb3.vec_env import AgentVecEnv


def use_live_buffer(model: BaseAlgorithm, env: AgentVecEnv, after_death: str = "earned") -> None:
    """Give a newly built learner a buffer from which the dead do not teach, in place of SB3's.

    Args:
        model: The learner.
        env: Its environment.
        after_death: "earned", "mean" or "critic"; see the module.

    Raises:
        ValueError: The learner's buffer is not one of SB3's or sb3-contrib's for flat observations.
    """
    name = "rollout_buffer" if hasattr(model, "rollout_buffer") else "replay_buffer"
    old = getattr(model, name)
    live_class = _LIVE.get(type(old))
    if live_class is None:
        raise ValueError(
            f"cannot tell how {type(old).__name__} treats an agent's steps after its death; "
            f"known are {[base.__name__ for base in _LIVE]}"
        )
    shapes = {"observation_space": old.observation_space, "action_space": old.action_space, "device": old.device}
    if name == "replay_buffer":
        timeouts = old.handle_timeout_termination
        buffer = live_class(old.buffer_size * old.n_envs, n_envs=1, handle_timeout_termination=timeouts, **shapes)
        buffer.gamma = model.gamma
    else:
        if isinstance(old, RecurrentRolloutBuffer):
            shapes["hidden_state_shape"] = old.hidden_state_shape
        estimates = {"gae_lambda": old.gae_lambda, "gamma": old.gamma}
        buffer = live_class(old.buffer_size, n_envs=old.n_envs, **estimates, **shapes)
    buffer.env = env
    setattr(model, name, buffer)
    set_after_death(model, env, after_death)


def set_after_death(model: BaseAlgorithm, env: AgentVecEnv, after_death: str) -> None:
    """Say what a death is followed by, for a learner that has a live buffer; off-policy ones have but one way."""
    if hasattr(model, "rollout_buffer"):
        model.rollout_buffer.after_death = after_death
        env.critic_knows_death = after_death == "critic"


class _LiveSteps:
    """Mixin over a ``RolloutBuffer``: knows on which steps the agent was alive; see the module."""

    env: AgentVecEnv
    rewards: NDArray[np.float32]  # [T, N]
    values: NDArray[np.float32]  # [T, N]
    advantages: NDArray[np.float32]  # [T, N]
    generator_ready: bool
    live: NDArray[np.bool_]  # [T, N]
    cut: NDArray[np.bool_]  # [T, N]: a time limit ended the episode of an agent that was dead, or died in that step
    env_rewards: NDArray[np.float32]  # [T, N]: the environment's own, as they were
    broken: NDArray[np.bool_]  # [T, N]: of an episode that the simulator broke
    after_death = "earned"
    dead_value = 0.0  # the newest estimate of what being dead, or dying, is worth

    def reset(self) -> None:
        super().reset()
        shape = self.buffer_size, self.n_envs
        self.live, self.cut, self.broken = np.ones(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
        self.env_rewards = np.zeros(shape, np.float32)

    def add(self, *args: Any, **kwargs: Any) -> None:
        self.live[self.pos], self.cut[self.pos] = self.env.live, self.env.cut
        self.env_rewards[self.pos] = self.env.env_rewards
        for copy in np.flatnonzero(self.env.forget):
            self.broken[max(0, self.pos + 1 - self.env.forget[copy]) : self.pos + 1, copy] = True
        super().add(*args, **kwargs)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: NDArray[Any]) -> None:
        self.last_values, self.last_dones = last_values.clone(), dones.copy()
        self.last_alive = self.env.alive.copy()
        self.recompute()

    def recompute(self) -> None:
        """Returns and advantages from ``rewards`` as they are now, with the values of the rollout's end."""
        if not self.teaching().any():
            # SB3's train() cannot do without any minibatch: it gets one without advantage and value error.
            self.advantages, self.returns = np.zeros_like(self.advantages), self.values.copy()
            return
        all_lived = self.live.all() and self.last_alive.all() and not self.cut.any()
        if self.after_death == "critic" or all_lived:
            super().compute_returns_and_advantage(self.last_values, self.last_dones)
            return
        self.dead_value = self._value_of_death()
        self.values[~self.live] = self.dead_value
        last = self.last_values.detach().cpu().numpy().flatten()
        last_values = np.where(self.last_alive, last, self.dead_value).astype(np.float32)
        rewards = self.rewards
        if self.cut.any():
            # SB3 has put no bootstrap into the rewards of the dead: what a time limit cut off is worth.
            self.rewards = rewards + np.float32(self.gamma * self.dead_value) * self.cut
        if self.after_death == "mean":
            self.rewards = self._with_constant_dead_value(last_values)
        super().compute_returns_and_advantage(torch.as_tensor(last_values), self.last_dones)
        self.rewards = rewards

    def _value_of_death(self) -> float:
        """What being dead is worth, or with ``after_death="mean"`` what dying is worth.

        The first is the v that is itself the mean over all dead steps of the discounted reward that followed, v standing
        for the rest where rollout or time limit end before the episode does. The second is that mean over deaths alone.
        Without a dead step it is what it was in the rollout before.
        """
        last = self.last_values.detach().cpu().numpy().flatten()
        # What follows is worth earned + unknown * v; nothing is unknown past the end of an episode.
        earned, unknown = np.where(self.last_alive, last, 0.0), (~self.last_alive).astype(np.float64)
        goes_on = 1.0 - self.last_dones.astype(np.float64)
        dead_earned, dead_unknown = np.zeros(self.rewards.shape), np.zeros(self.rewards.shape)
        for t in reversed(range(len(self.rewards))):
            unknown = self.gamma * np.where(self.cut[t], 1.0, goes_on * unknown)
            earned = self.rewards[t] + self.gamma * goes_on * earned
            # An agent that comes back to life is worth what its critic says.
            unknown, earned = np.where(self.live[t], 0.0, unknown), np.where(self.live[t], self.values[t], earned)
            dead_earned[t], dead_unknown[t] = earned, unknown
            goes_on = 1.0 - self.episode_starts[t]
        dead = ~self.live & ~self.broken
        weight = (1.0 - dead_unknown[dead]).sum()
        being_dead = dead_earned[dead].sum() / weight if weight > 0.0 else self.dead_value
        died = dead.copy()  # dead, and alive one step before
        died[0] = False
        died[1:] &= self.live[:-1] & (self.episode_starts[1:] == 0.0)
        if self.after_death == "earned" or not died.any():
            return float(being_dead)
        return float((dead_earned[died] + dead_unknown[died] * being_dead).mean())

    def _with_constant_dead_value(self, last_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rewards, of dead steps just what keeps their value constant: no advantage flows back through them."""
        following = np.concatenate([self.values[1:], last_values[None]])
        over = np.concatenate([self.episode_starts[1:], self.last_dones[None]])
        constant = self.dead_value - self.gamma * (1.0 - over) * following
        return np.where(self.live, self.rewards, constant).astype(np.float32)

    def teaching(self) -> NDArray[np.bool_]:
        """Which steps the learner is to learn from, [T, N]."""
        return ~self.broken if self.after_death == "critic" else self.live & ~self.broken

    def _flat_teaching(self) -> NDArray[np.bool_]:
        return RolloutBuffer.swap_and_flatten(self.teaching())[:, 0]


class _LiveMinibatches(_LiveSteps):
    """Mixin: minibatches of steps that teach only, as many as SB3 would make of all steps, of nearly equal size."""

    _arrays: tuple[str, ...] = ("observations", "actions", "values", "log_probs", "advantages", "returns")

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        if self.teaching().all():
            yield from super().get(batch_size)
            return
        if not self.generator_ready:
            for name in self._arrays:
                setattr(self, name, RolloutBuffer.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        rows = np.flatnonzero(self._flat_teaching())
        if not len(rows):
            yield self._get_samples(np.array([0, 1 % len(self.values)]))  # teaches nothing: see recompute
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
    """For RecurrentPPO: sequences stay whole, and its losses' own mask leaves out the steps that do not teach."""

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        """Sequences with a mask of the steps that teach; minibatches without such a step are left out."""
        samples, taught = None, False
        for samples in super().get(batch_size):
            if samples.mask.sum() > 1:
                taught = True
                yield samples
        if not taught and samples is not None:
            yield samples._replace(mask=torch.ones_like(samples.mask))

    def _get_samples(self, batch_inds: NDArray[Any], env_change: NDArray[Any], env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env_change, env)
        if self.teaching().all():
            return samples
        teaching = self._flat_teaching()[batch_inds].astype(np.float32)
        return samples._replace(mask=self.pad_and_flatten(teaching))


class LiveReplayBuffer(ReplayBuffer):
    """For DQN, QR-DQN, SAC, TD3, ...: a flat ring of the living steps of all copies."""

    env: AgentVecEnv
    gamma = 0.99
    _arrays = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    _death_row: NDArray[np.int64] | None = None
    _discount: NDArray[np.float64]

    def forget_pending_deaths(self) -> None:
        """New episodes begin in all copies: what was pending of the old ones never comes."""
        self._death_row = None

    def add(
        self,
        obs: NDArray[Any],
        next_obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Store the living steps of all copies, and pay the step of death what its team earns afterwards."""
        live, copies = self.env.live, len(reward)
        if self._death_row is None:
            # Per copy: the row of the step on which the agent died (-1: it has not), and the discount since.
            self._death_row, self._discount = np.full(copies, -1), np.ones(copies)
            # Per copy the number of its episode, unlike any other's; per row the episode that it is of.
            self._episode, self._episode_of = np.arange(copies), np.full(self.buffer_size, -1)
        after = np.flatnonzero(~live & (self._death_row >= 0))
        self._discount[after] *= self.gamma
        self.rewards[self._death_row[after], 0] += self._discount[after] * reward[after]
        alive_next = self.env.alive & ~done
        died = live & ~alive_next & ~done
        rows = (self.pos + np.arange(live.sum())) % self.buffer_size
        self._death_row[np.isin(self._death_row, rows)] = -1  # overwritten: nothing left to add to
        self.observations[rows, 0], self.next_observations[rows, 0] = obs[live], next_obs[live]
        self.actions[rows, 0] = action.reshape(copies, self.action_dim)[live]
        self.rewards[rows, 0] = reward[live]
        self.dones[rows, 0] = (done | died)[live]
        timeouts = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        self.timeouts[rows, 0] = timeouts[live] if self.handle_timeout_termination else 0.0
        row_of = np.full(copies, -1)
        row_of[live] = rows
        self._death_row[died], self._discount[died] = row_of[died], 1.0
        self._episode_of[rows] = self._episode[live]
        self.full = self.full or self.pos + len(rows) >= self.buffer_size
        self.pos = (self.pos + len(rows)) % self.buffer_size
        if self.env.forget.any():
            self._remove(self._episode[self.env.forget > 0])
        self._death_row[self.env.over] = -1
        self._episode[self.env.over] += copies

    def _remove(self, episodes: NDArray[np.int64]) -> None:
        """Remove the rows of these episodes; the others close up, in the order of their age."""
        by_age = (np.arange(self.buffer_size) + self.pos) % self.buffer_size if self.full else np.arange(self.pos)
        kept = by_age[~np.isin(self._episode_of[by_age], episodes)]
        if not len(kept):  # an empty buffer cannot be sampled from: the oldest step, played like any other, stays
            kept = by_age[:1]
        for name in (*self._arrays, "_episode_of"):
            array = getattr(self, name)
            array[: len(kept)] = array[kept]
        self._episode_of[len(kept) :] = -1
        new_row = np.full(self.buffer_size + 1, -1)  # the last for the -1 of copies whose agent has not died
        new_row[kept] = np.arange(len(kept))
        self._death_row = new_row[self._death_row]
        self.pos, self.full = len(kept) % self.buffer_size, len(kept) == self.buffer_size

    def state_dict(self) -> dict[str, Any]:
        """The filled rows, for a checkpoint. Environments start anew after one, so nobody's death is pending."""
        rows = self.buffer_size if self.full else self.pos
        arrays = {name: torch.from_numpy(getattr(self, name)[:rows].copy()) for name in self._arrays}
        return {"pos": self.pos, "full": self.full, "arrays": arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of ``state_dict``; a smaller buffer takes the newest rows."""
        saved = len(state["arrays"]["rewards"])
        if saved == self.buffer_size or not (state["full"] or saved > self.buffer_size):
            newest, self.pos, self.full = np.arange(saved), state["pos"], state["full"]
        else:  # of another size, as with another number of copies
            by_age = (np.arange(saved) + (state["pos"] if state["full"] else 0)) % saved
            newest = by_age[-self.buffer_size :]
            self.pos, self.full = len(newest) % self.buffer_size, len(newest) == self.buffer_size
        for name, rows in state["arrays"].items():
            getattr(self, name)[: len(newest)] = rows.numpy()[newest]


_LIVE: dict[type[Any], type[Any]] = {
    RolloutBuffer: LiveRolloutBuffer,
    MaskableRolloutBuffer: LiveMaskableRolloutBuffer,
    RecurrentRolloutBuffer: LiveRecurrentRolloutBuffer,
    ReplayBuffer: LiveReplayBuffer,
}
