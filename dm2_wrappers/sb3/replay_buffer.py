"""An SB3 replay buffer of the steps at which its agent was alive.

For off-policy algorithms (DQN, QR-DQN, SAC, ...) an agent's death ends its stored episode. The discounted rewards that
the team earns afterwards are added to the step of death as they come in. When the simulator breaks an episode, its steps
are removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer

from dm2_wrappers.sb3.vec_env import AgentVecEnv


class LiveReplayBuffer(ReplayBuffer):
    """For DQN, QR-DQN, SAC, TD3, ...: a flat ring of the live steps of all sub-environments."""

    env: AgentVecEnv | None = None
    gamma: float
    _arrays = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    # New numbers are given to episodes after loading, and their deaths are no longer pending.
    _not_saved: tuple[str, ...] = ("env", "_death_row", "_discount", "_episode", "_episode_of")
    _death_row: NDArray[np.int64] | None = None
    _discount: NDArray[np.float64]

    def __getstate__(self) -> dict[str, Any]:
        """For SB3's ``save_replay_buffer``: everything but the environment, which ``learn`` connects again."""
        return {name: value for name, value in self.__dict__.items() if name not in self._not_saved}

    def forget_pending_deaths(self) -> None:
        """Forget the deaths whose later rewards are still to come: new episodes begin in all sub-environments."""
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
        """Store the live steps, and credit each step of death with what the team earns afterwards."""
        if self.env is None:
            raise RuntimeError("this replay buffer was loaded while learn() was under way: load it before learn()")
        step, copies = self.env.last_step, len(reward)
        live = step.alive
        if self._death_row is None:
            # Per sub-environment: the row of the step at which the agent died (-1: it has not), and the discount since.
            self._death_row, self._discount = np.full(copies, -1), np.ones(copies)
            # Per sub-environment the number of its episode, a unique one; per row the episode that it belongs to.
            self._episode, self._episode_of = np.arange(copies), np.full(self.buffer_size, -1)
        after = np.flatnonzero(~live & (self._death_row >= 0))
        self._discount[after] *= self.gamma
        self.rewards[self._death_row[after], 0] += self._discount[after] * reward[after]
        alive_next = step.alive_next & ~done
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
        if step.steps_to_discard.any():
            self._remove(self._episode[step.steps_to_discard > 0])
        self._death_row[step.joint_end] = -1
        self._episode[step.joint_end] += copies

    def _remove(self, episodes: NDArray[np.int64]) -> None:
        """Remove the rows of these episodes; the others close up, in the order of their age.

        If none are left, the learner takes no gradient steps until there are new ones; see `PauseWithoutSteps`.
        """
        by_age = (np.arange(self.buffer_size) + self.pos) % self.buffer_size if self.full else np.arange(self.pos)
        kept = by_age[~np.isin(self._episode_of[by_age], episodes)]
        for name in (*self._arrays, "_episode_of"):
            array = getattr(self, name)
            array[: len(kept)] = array[kept]
        self._episode_of[len(kept) :] = -1
        new_row = np.full(self.buffer_size + 1, -1)  # the last one is for -1, where the agent has not died
        new_row[kept] = np.arange(len(kept))
        self._death_row = new_row[self._death_row]
        self.pos, self.full = len(kept) % self.buffer_size, len(kept) == self.buffer_size

    def state_dict(self) -> dict[str, Any]:
        """The filled rows, for a checkpoint. Environments start new episodes after one, so no death is pending."""
        rows = self.buffer_size if self.full else self.pos
        arrays = {name: torch.from_numpy(getattr(self, name)[:rows].copy()) for name in self._arrays}
        return {"pos": self.pos, "full": self.full, "arrays": arrays}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Check what ``state_dict`` returned, without changing anything.

        Raises:
            ValueError: It is damaged, or of other observations or actions.
        """
        arrays, pos, full = state["arrays"], state["pos"], state["full"]
        rows = len(arrays["rewards"])
        fits = isinstance(pos, int) and isinstance(full, bool) and (0 <= pos < max(rows, 1) if full else pos == rows)
        for name in self._arrays:
            own = torch.from_numpy(getattr(self, name)[:0])
            fits &= arrays[name].shape[1:] == own.shape[1:] and arrays[name].dtype == own.dtype and len(arrays[name]) == rows
        if not fits or set(arrays) != set(self._arrays):
            raise ValueError("the saved replay buffer is damaged, or holds other observations or actions than this one")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``; a smaller buffer takes the newest rows.

        Raises:
            ValueError: It is damaged, or of other observations or actions. Nothing has changed then.
        """
        self.check_state(state)
        saved = len(state["arrays"]["rewards"])
        if saved == self.buffer_size or not (state["full"] or saved > self.buffer_size):
            newest, self.pos, self.full = np.arange(saved), state["pos"], state["full"]
        else:  # of another size, as with another number of sub-environments
            by_age = (np.arange(saved) + (state["pos"] if state["full"] else 0)) % saved
            newest = by_age[-self.buffer_size :]
            self.pos, self.full = len(newest) % self.buffer_size, len(newest) == self.buffer_size
        for name, rows in state["arrays"].items():
            getattr(self, name)[: len(newest)] = rows.numpy()[newest]
