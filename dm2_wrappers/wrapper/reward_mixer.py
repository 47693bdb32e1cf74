"""What both wrappers share: mixing rewards, handing observations to the matcher, and when to update it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.episodes import team_rewards
from dm2_wrappers.matching import AfterStep, Coefficient, DistributionMatcher, PendingSteps, SelfImitation
from dm2_wrappers.matching.episode_collector import EpisodeCollector
from dm2_wrappers.matching.mixing import Mixing, check_both, load_both
from dm2_wrappers.unwrap import owns_matcher
from dm2_wrappers.vector.base import EpisodeClock


def matcher_of(demos_or_matcher: Any) -> DistributionMatcher:
    """Return a matcher unchanged, or make one with the default options from demonstrations or self-imitation.

    Raises:
        TypeError: The argument is neither.
    """
    if isinstance(demos_or_matcher, Demonstrations | SelfImitation):
        return DistributionMatcher(demos_or_matcher)
    if isinstance(demos_or_matcher, DistributionMatcher):
        return demos_or_matcher
    advice = "read the file with Demonstrations.load(path)"
    if not isinstance(demos_or_matcher, str | os.PathLike):
        advice = "make demonstrations with Demonstrations.record or Demonstrations.load"
    raise TypeError(f"expected Demonstrations or a DistributionMatcher, got {demos_or_matcher!r}; {advice}")


class RewardMixer:
    """Base of both wrappers: mixes rewards, collects observations and updates the discriminators.

    Attributes:
        matcher: The discriminators. It can be shared, but not copied.
        env_coefficient: Factor on the environment's reward. With 0 the agents are paid r_gail alone.
        update_every: Joint environment steps between two automatic updates. None: you call ``update()`` yourself.
        training: While False, nothing is recorded and ``update_every`` does not count steps. Rewards are still mixed.
        metrics: What the last ``update()`` returned.
        steps_since_update: Joint steps since the last update, which ``update_every`` counts.
    """

    matcher = _checks.Fixed[DistributionMatcher]()

    def _set_up(
        self,
        demos_or_matcher: Demonstrations | SelfImitation | DistributionMatcher,
        coefficient: Coefficient,
        env_coefficient: float,
        update_every: int | None,
    ) -> None:
        self.matcher = matcher_of(demos_or_matcher)
        self.coefficient = coefficient
        self.env_coefficient = _checks.number("env_coefficient", env_coefficient, least=0)
        self.update_every = _checks.integer("update_every", update_every, least=1, none=True)
        self.training = True
        self.metrics: dict[str, float] = {}
        self._pending = PendingSteps()
        self._clock, self._episodes = EpisodeClock(), EpisodeCollector(self.matcher)
        self.steps_since_update = 0
        self._steps_before_update: int | None = 0  # None once an update was made, or the warning given

    @property
    def _needs_actions(self) -> bool:
        return self.matcher.needs_actions or self.matcher.self_imitation is not None

    @property
    def coefficient(self) -> Coefficient:
        """The paper's c, for all agents or ``{agent: c}``, or a schedule. You can assign it at any time."""
        return self._mixing.coefficient

    @coefficient.setter
    def coefficient(self, value: Coefficient) -> None:
        self._mixing = Mixing(value, self.matcher)

    @property
    def current_coefficient(self) -> dict[str, float]:
        """Each agent's present c."""
        return self._mixing.by_agent()

    def update(self) -> dict[str, float]:
        """Train the discriminators (lines 8 and 9 of Algorithm 1).

        Returns:
            The metrics of `DistributionMatcher.update`, and "coefficient/<agent>", the c with which the next steps are paid.
        """
        self.flush()
        self.steps_since_update, self._steps_before_update = 0, None
        metrics = self.matcher.update()
        self._mixing.updated(self.env_coefficient)
        self.metrics = metrics | {f"coefficient/{agent}": c for agent, c in self.current_coefficient.items()}
        return self.metrics

    def state_dict(self) -> dict[str, Any]:
        """The matcher's state, the schedule's, and the count of ``update_every``; `flush` is called first."""
        self.flush()
        return {
            "matcher": self.matcher.state_dict(),
            "schedule": self._mixing.state_dict(),
            "steps_since_update": self.steps_since_update,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, and reset the environment then.

        ``coefficient`` stays as it is. If it is a schedule and the saved one was, too, it continues from the saved state.

        Raises:
            ValueError: Those of `DistributionMatcher.load_state_dict`, or a schedule of another class. Then nothing changes.
        """
        check_both(state, "a DM2 wrapper")
        steps = _checks.integer("steps_since_update", state.get("steps_since_update", 0), least=0)
        load_both(self.matcher, self._mixing, state["matcher"], state["schedule"])
        self._pending.clear()
        self.steps_since_update = steps

    def flush(self) -> None:
        """Pass the observations since the last update to the matcher now. Updates come as they would without it.

        If the matcher cannot record them, they are kept for another attempt.
        """
        if len(self._pending):
            observations, alive, broken, more = self._pending.stacked()
            self.matcher.record(observations, alive, broken=broken, **more)
            self._pending.clear()

    def _saw(
        self,
        observations: NDArray[np.float32],
        alive: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        broken: NDArray[np.bool_] | None,
        actions: NDArray[Any] | None,
        after: AfterStep | None,
        time: NDArray[np.int64],
        present: NDArray[np.bool_],
        rewards: tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.float32]],
    ) -> None:
        """Record one joint step that was taken from these observations [N, K, D] (line 6).

        ``rewards`` are the environment's own, those that it paid (which another wrapper may have shaped), and r_gail.
        """
        if not self.training:
            self._pending.skip(ended, broken)
            self._mixing.skip()
            self._episodes.skip()
            return
        own, env_rewards, gail_rewards = rewards
        self._mixing.count(own, present, ended, broken, time)
        self._mixing.paid(env_rewards, gail_rewards, alive)
        if self.matcher.self_imitation is not None:
            self._episodes.step(observations, alive, actions, team_rewards(own, present), ended, broken, time)
        done = actions if self.matcher.needs_actions else None
        self._pending.append(observations, alive, ended, broken, actions=done, after=after)
        self.steps_since_update += len(observations)
        if len(self._pending) * len(observations) >= self.matcher.buffer_size:
            self.flush()  # without updates: the matcher keeps the newest steps, and memory stays bounded
        if self.update_every is not None:
            if self.steps_since_update >= self.update_every:
                self.update()
        elif self._steps_before_update is not None:
            self._steps_before_update += len(observations)
            if self._steps_before_update >= self.matcher.buffer_size:
                self._steps_before_update = None
                warnings.warn(
                    f"the discriminators have not been trained in the first {self.matcher.buffer_size} steps: call update() "
                    "after each rollout, or set update_every",
                    stacklevel=3,
                )


def refuse_second_matcher(env: Any) -> None:
    """Refuse an environment inside a DM2 wrapper.

    Raises:
        ValueError: It has one.
    """
    if owns_matcher(env):
        raise ValueError(
            f"{type(env).__name__} already has a DM2 wrapper: r_gail would be paid twice; wrap the environment once"
        )
