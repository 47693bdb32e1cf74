"""From joint steps to whole episodes, for self-imitation."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers._checks import shown
from dm2_wrappers.matching.self_imitation import OwnEpisode, SelfImitation


class Imitator(Protocol):
    """What an `EpisodeCollector` hands episodes to."""

    self_imitation: SelfImitation | None


@dataclass
class EpisodeCollector:
    """Puts the joint steps of N sub-environments together into whole episodes and offers these to a matcher.

    Attributes:
        matcher: A matcher; without self-imitation nothing is collected.
    """

    matcher: Imitator
    _steps: deque[tuple[Any, ...]] = field(default_factory=deque)
    # Of the episodes under way, [N], also those too long to keep: the return so far, and how many steps there were. The
    # latter is -1 if not all of them were seen.
    _returns: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    _lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def check_given(self, actions: Any, rewards: Any) -> None:
        """Check that a caller gave what self-imitation needs.

        Raises:
            ValueError: With self-imitation, no actions or no rewards.
        """
        if self.matcher.self_imitation is not None and (rewards is None or actions is None):
            raise ValueError("SelfImitation needs each step's actions and team_rewards: pass both to append()")

    def check_step(self, actions: Any, rewards: Any, shape: tuple[int, int]) -> None:
        """Check the form of one step's actions and rewards, which `step` relies on.

        Args:
            actions: As for `step`.
            rewards: As for `step`.
            shape: N and K.

        Raises:
            ValueError: With self-imitation, actions of another form, or rewards that are not one finite number each.
        """
        if self.matcher.self_imitation is None:
            return
        integers = actions.dtype.kind in "iu"
        if actions.shape[:2] != shape or not (integers if actions.ndim == 2 else actions.ndim == 3):
            raise ValueError(
                f"expected actions, integers {list(shape)} or floats [{shape[0]}, {shape[1]}, A], got {actions.dtype} "
                f"{list(actions.shape)}"
            )
        if self._steps and (before := self._steps[-1][2].shape[2:]) != actions.shape[2:]:
            raise ValueError(
                f"expected actions of the shape {list(before)} of each agent, as in the step before, got "
                f"{list(actions.shape[2:])}"
            )
        if rewards.shape != shape[:1] or rewards.dtype.kind not in "biuf" or not np.isfinite(rewards).all():
            raise ValueError(
                f"expected team_rewards, one finite number for each of {shape[0]} sub-environments, got {shown(rewards)}"
            )

    def step(
        self,
        observations: NDArray[np.float32],
        alive: NDArray[np.bool_],
        actions: NDArray[Any] | None,
        rewards: NDArray[Any] | None,
        ended: NDArray[np.bool_],
        broken: NDArray[np.bool_] | None,
        time: NDArray[np.int64],
    ) -> None:
        """One joint step was taken.

        Args:
            observations: Before the action, float32 [N, K, D].
            alive: bool [N, K].
            actions: [N, K] or [N, K, A]; needed with self-imitation, as `check_given` checks.
            rewards: The team's environment reward, [N]; likewise.
            ended: Which joint episodes ended with it, bool [N].
            broken: Which of them the simulator broke, bool [N].
            time: How many steps of its episode came before, int64 [N]. An episode whose first steps were not seen here
                is left out.
        """
        imitation = self.matcher.self_imitation
        if imitation is None:
            return
        self._steps.append((observations, alive, actions, rewards, time))
        if len(self._lengths) != len(time):
            self._returns, self._lengths = np.zeros(len(time)), np.full(len(time), -1)
        self._returns = np.where(time == 0, 0.0, self._returns) + rewards
        self._lengths = np.where((time == 0) | (time == self._lengths), time + 1, -1)
        finished = ended & (self._lengths > 0)
        for i in map(int, np.flatnonzero(finished if broken is None else finished & ~broken)):
            if time[i] < imitation.max_steps:
                imitation.offer(_episode(list(self._steps)[-int(time[i]) - 1 :], i))
            else:
                imitation.count(float(self._returns[i]))
        longest = int(np.where(ended, 0, time + 1).max())  # only episodes under way are still needed
        while len(self._steps) > min(longest, imitation.max_steps):
            self._steps.popleft()

    def skip(self) -> None:
        """One joint step was taken that does not count, so the episodes under way do not either."""
        self._steps.clear()
        self._lengths = np.full_like(self._lengths, -1)


def _episode(steps: Sequence[tuple[Any, ...]], i: int) -> OwnEpisode:
    observations, alive, actions, rewards = (np.stack([step[part][i] for step in steps]) for part in range(4))
    return OwnEpisode(np.where(alive[..., None], observations, np.float32(0)), alive, actions, rewards.astype(np.float64))
