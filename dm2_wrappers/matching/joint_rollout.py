"""The rollout of all agents, and the discriminators' rewards for it (lines 6 to 10 of Algorithm 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.matching.after_step import AfterStep, with_time
from dm2_wrappers.matching.episode_collector import EpisodeCollector
from dm2_wrappers.matching.matcher import DistributionMatcher, checked_matcher
from dm2_wrappers.matching.pending_steps import PendingSteps
from dm2_wrappers.vector.base import EpisodeClock


class JointRollout:
    """Collects all agents' observations of a rollout. `gail_rewards` then updates the discriminators and returns r_gail.

    Use it for the exact order of Algorithm 1 in your own training loop, or in K single-agent loops that run in
    `dm2_wrappers.lockstep`. ``dm2_wrappers.sb3`` uses it too.

    Args:
        matcher: The discriminators.

    Attributes:
        metrics: What the last ``matcher.update()`` returned.

    Raises:
        TypeError: ``matcher`` is not a `DistributionMatcher`.

    Example:
        A training loop over a vector environment ``venv`` (N sub-environments, K agents)::

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
        self.matcher = checked_matcher(matcher)
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

        Arrays are copied, so you can use them again.

        Args:
            observations: The observations before the actions, float32 [N, K, D], padded to the widest agent.
            alive: Which agents were alive at those observations, bool [N, K].
            ended: The sub-environments whose joint episode ended with this step, bool [N].
            broken: Those in which the simulator failed, bool [N]; the steps of these episodes are discarded. By default
                none.
            actions: The agents' actions, integers [N, K] or floats [N, K, A]. Needed for ``inputs="state-action"`` and
                self-imitation.
            after: What followed, from ``AfterStep.of(terminations, truncations, infos)``. Needed for
                ``inputs="transition"`` and ``ends="absorbing"``. Without its ``time``, the steps of each episode are
                counted here; then call `clear` whenever you reset the environment.
            team_rewards: The team's environment reward, [N]. Needed for self-imitation.

        Raises:
            ValueError: The matcher needs something that is missing, a shape does not fit, or the number of sub-environments
                is not that of the steps before. Then the step is not added.
        """
        self.matcher.check_given(actions, after)
        self._episodes.check_given(actions, team_rewards)
        observations, alive, ended, broken = self._checked(observations, alive, ended, broken)
        actions = None if actions is None else np.array(actions)
        team_rewards = None if team_rewards is None else np.array(team_rewards)
        self.matcher.check_actions(actions, alive.shape)
        self._episodes.check_step(actions, team_rewards, alive.shape)
        time = self._clock.tick(ended) if after is None or after.time is None else after.time
        self._episodes.step(observations, alive, actions, team_rewards, ended, broken, time)
        done = actions if self.matcher.needs_actions else None
        followed = with_time(after, time) if self.matcher.needs_after else None
        self._steps.append(observations, alive, ended, broken, actions=done, after=followed)
        self._rewards = None

    def _checked(
        self, observations: Any, alive: Any, ended: Any, broken: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_] | None]:
        """Copies of one joint step's arrays, of the right shapes."""
        observations = np.array(observations)
        agents, features = self.matcher.num_agents, max(self.matcher.sizes)
        if observations.ndim != 3 or observations.shape[1:] != (agents, features):
            raise ValueError(
                f"expected the observations of one joint step, [N, {agents}, {features}] (sub-environments, agents, "
                f"features of the widest), got {observations.shape}"
            )
        n = len(observations)
        if len(self._steps) and n != self._steps.num_envs:
            raise ValueError(
                f"this rollout has steps of {self._steps.num_envs} sub-environments, got one of {n}; use one JointRollout "
                "for each environment, or call clear() first"
            )
        alive, ended = _checks.flags("alive", alive, (n, agents)), _checks.flags("ended", ended, (n,))
        return observations, alive, ended, None if broken is None else _checks.flags("broken", broken, (n,))

    def clear(self) -> None:
        """Discard the current rollout, for example because the environment was reset."""
        self._steps.clear()
        self._clock.restart()
        self._rewards = None

    def gail_rewards(self) -> NDArray[np.float32]:
        """Update the discriminators once, then compute r_gail with the updated ones (lines 8-10).

        If K loops run in lockstep, the first call after a rollout updates the discriminators, and the other loops get the
        same array. No joint step happens before all loops have finished the rollout.

        Returns:
            r_gail of each appended step, float32 [T, N, K]; 0 for dead agents.

        Raises:
            RuntimeError: Nothing was appended.
            ValueError: See `DistributionMatcher.record` and `DistributionMatcher.update`. If the rollout cannot be recorded,
                it is kept; `clear` discards it.
        """
        if self._rewards is None:
            if not len(self._steps):
                raise RuntimeError("the rollout is empty: call append() with each joint step before gail_rewards()")
            observations, alive, broken, more = self._steps.stacked()
            self.matcher.record(observations, alive, broken=broken, **more)
            self._steps.clear()
            self.metrics = self._update()
            self._rewards = self.matcher.rewards(observations, alive, **more)
        return self._rewards

    def _update(self) -> dict[str, float]:
        """Lines 8 and 9."""
        return self.matcher.update()
