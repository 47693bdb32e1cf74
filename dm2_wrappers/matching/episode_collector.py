"""From joint steps to whole episodes, for self-imitation."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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

    def check_given(self, actions: Any, rewards: Any) -> None:
        """Check that a caller gave what self-imitation needs.

        Raises:
            ValueError: With self-imitation, no actions or no rewards.
        """
        if self.matcher.self_imitation is not None and (rewards is None or actions is None):
            raise ValueError("SelfImitation needs each step's actions and team_rewards: pass both to append()")

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
        for i in map(int, np.flatnonzero(ended)):
            steps = list(self._steps)[-int(time[i]) - 1 :]
            seen_whole = [int(step[4][i]) for step in steps] == list(range(int(time[i]) + 1))
            if seen_whole and not (broken is not None and broken[i]):
                imitation.offer(_episode(steps, i))
        longest = int(np.where(ended, 0, time + 1).max())  # only episodes under way are still needed
        while len(self._steps) > min(longest, imitation.max_steps):
            self._steps.popleft()


def _episode(steps: Sequence[tuple[Any, ...]], i: int) -> OwnEpisode:
    observations, alive, actions, rewards = (np.stack([step[part][i] for step in steps]) for part in range(4))
    return OwnEpisode(np.where(alive[..., None], observations, np.float32(0)), alive, actions, rewards.astype(np.float64))
