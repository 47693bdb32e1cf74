"""The rollout of all agents, and the rewards that the discriminators pay for it (lines 6 to 10 of Algorithm 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.matching.after_step import AfterStep, with_time
from dm2_wrappers.matching.episode_collector import EpisodeCollector
from dm2_wrappers.matching.matcher import DistributionMatcher
from dm2_wrappers.matching.pending_steps import PendingSteps
from dm2_wrappers.vector.base import EpisodeClock


class JointRollout:
    """All agents' observations of the present rollout; `gail_rewards` updates the discriminators once for all of them.

    This gives K training loops that step one environment together the exact order of Algorithm 1, whether they are
    written by hand or run in `dm2_wrappers.lockstep`. ``dm2_wrappers.sb3`` is built on it.

    Args:
        matcher: The discriminators.

    Attributes:
        metrics: What the newest ``matcher.update()`` returned.

    Example:
        A loop by hand over a vector environment ``venv`` (N sub-environments, K agents)::

            rollout = dm2.JointRollout(dm2.DistributionMatcher(demos))
            observations, infos = venv.reset(seed=0)
            for _ in range(iterations):
                env_rewards = []
                for _ in range(n_steps):
                    actions = policy(observations)
                    alive, before = infos["alive"], observations
                    observations, rewards, terminations, truncations, infos = venv.step(actions)
                    ended = (terminations | truncations).all(axis=1)
                    rollout.append(before, alive, ended, infos.get("broken"))         # line 6
                    env_rewards.append(rewards)
                gail_rewards = rollout.gail_rewards()                                 # lines 8-10, [T, N, K]
                mixed_rewards = np.stack(env_rewards) + coefficient * gail_rewards    # line 11
                learn(mixed_rewards)                                                  # line 12
    """

    def __init__(self, matcher: DistributionMatcher) -> None:
        self.matcher = matcher
        self.metrics: dict[str, float] = {}
        self._steps = PendingSteps()
        self._clock = EpisodeClock()
        self._episodes = EpisodeCollector(matcher)
        self._rewards: NDArray[np.float32] | None = None

    def append(
        self,
        observations: NDArray[np.float32],
        alive: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        broken: NDArray[np.bool_] | None = None,
        *,
        actions: NDArray[Any] | None = None,
        after: AfterStep | None = None,
        team_rewards: NDArray[Any] | None = None,
    ) -> None:
        """Add one joint step (line 6). The first step after `gail_rewards` begins a new rollout.

        Args:
            observations: Before the action, float32 [N, K, D], padded to the widest agent.
            alive: Which agents were alive at those observations, bool [N, K].
            ended: The sub-environments whose joint episode ended with this step, bool [N].
            broken: Those whose episode the simulator broke, bool [N]; their steps are discarded. None by default.
            actions: What the agents did, integers [N, K] or floats [N, K, A]. Needed for ``inputs="state-action"`` and
                self-imitation.
            after: What followed, as ``AfterStep.of(terminations, truncations, infos)`` has it. Needed for
                ``inputs="transition"`` and ``ends="absorbing"``. Without its ``time`` the steps of each episode are
                counted here; then call `clear` whenever you reset the environment.
            team_rewards: The team's environment reward, [N]. Needed for self-imitation.

        Raises:
            ValueError: The matcher needs something that is missing.
        """
        time = self._clock.tick(ended) if after is None or after.time is None else after.time
        self.matcher.check_given(actions, after)
        self._episodes.step(observations, alive, actions, team_rewards, ended, broken, time)
        done = actions if self.matcher.needs_actions else None
        followed = with_time(after, time) if self.matcher.needs_after else None
        self._steps.append(observations, alive, ended, broken, actions=done, after=followed)
        self._rewards = None

    def clear(self) -> None:
        """Discard the present rollout, for example because the environment was reset."""
        self._steps.clear()
        self._clock.restart()
        self._rewards = None

    def gail_rewards(self) -> NDArray[np.float32]:
        """Update the discriminators once, then pay with the updated ones (lines 8-10).

        With K loops in lockstep, the first loop to finish its rollout triggers the update, and the others get the same
        array, since no joint step happens before all loops have finished the rollout.

        Returns:
            r_gail of each step that was appended, float32 [T, N, K]; 0 for dead agents.

        Raises:
            RuntimeError: Nothing was appended.
            ValueError: Those of `DistributionMatcher.record` and `DistributionMatcher.update`.
        """
        if self._rewards is None:
            if not len(self._steps):
                raise RuntimeError("the rollout is empty: call append() with each joint step before gail_rewards()")
            observations, alive, broken, more = self._steps.take_all()
            self.matcher.record(observations, alive, broken=broken, **more)
            self.metrics = self.matcher.update()
            self._rewards = self.matcher.rewards(observations, alive, **more)
        return self._rewards
