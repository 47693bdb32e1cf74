"""The coefficient in use, and what its schedule, if it has one, must be told at each update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.matching.coefficient import Coefficient, Progress, Schedule, as_array, checked
from dm2_wrappers.matching.matcher import DistributionMatcher

_ROUNDING = 1e-12  # of a mean square: a smaller variance comes from rounding, and the rewards are all the same


class Mixing:
    """Each agent's present c. Without a schedule, nothing is collected.

    Args:
        coefficient: A number, ``{agent: number}`` or a schedule.
        matcher: Whose agents and demonstrations they are.

    Attributes:
        coefficient: As given, numbers as floats.
        array: Each agent's present c, float32 [K].

    Raises:
        ValueError: Not a number between 0 and 1e18 for each agent.
    """

    def __init__(self, coefficient: Coefficient, matcher: DistributionMatcher) -> None:
        self.coefficient = checked(coefficient, matcher.agents)
        self._agents = matcher.agents
        self.schedule = self.coefficient if isinstance(self.coefficient, Schedule) else None
        if self.schedule is not None:
            self.schedule.begin(matcher.agents, matcher.demonstrations)
        self.array = as_array(self.coefficient, matcher.agents)
        self._steps = 0
        self._running: NDArray[np.float64] | None = None  # returns of the episodes under way, [N]
        self._whole: NDArray[np.bool_] = np.zeros(0, bool)  # which of these were counted from their first step on
        self._returns: list[float] = []
        # Since the last update: live steps [K], and sums and sums of squares of the rewards, [2, K] each.
        self._live_steps: NDArray[np.int64] = np.zeros(len(self._agents), np.int64)
        self._env: NDArray[np.float64] = np.zeros((2, len(self._agents)))
        self._gail: NDArray[np.float64] = np.zeros((2, len(self._agents)))

    def by_agent(self) -> dict[str, float]:
        """Each agent's present c."""
        return {agent: float(c) for agent, c in zip(self._agents, self.array, strict=True)}

    def count(
        self,
        rewards: NDArray[np.float32],
        present: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        broken: NDArray[np.bool_] | None,
        time: NDArray[np.int64],
    ) -> None:
        """One joint step was taken. An episode's return counts if all of its steps were counted.

        Args:
            rewards: The environment's own, [N, K].
            present: The agents that acted, [N, K].
            ended: The joint episode ended, [N].
            broken: The simulator broke it, [N].
            time: How many steps of its episode came before, [N].
        """
        if self.schedule is None:
            return
        self._steps += len(rewards)
        began = time == 0
        if self._running is None:
            self._running, self._whole = np.zeros(len(rewards)), began
        self._whole = self._whole | began
        team = np.where(present, rewards, 0.0).sum(1) / present.sum(1).clip(min=1)
        self._running = np.where(began, 0.0, self._running) + team
        finished = (ended if broken is None else ended & ~broken) & self._whole
        self._returns += self._running[finished].tolist()

    def skip(self) -> None:
        """One joint step was taken that does not count, so the episodes under way do not either."""
        self._running = None

    def paid(self, env_rewards: NDArray[np.floating], gail_rewards: NDArray[np.float32], alive: NDArray[np.bool_]) -> None:
        """Rewards were paid for some steps, [..., K] each; those of the dead do not count."""
        if self.schedule is None:
            return
        live = alive.reshape(-1, len(self._agents))
        self._live_steps += live.sum(0)
        for sums, rewards in ((self._env, env_rewards), (self._gail, gail_rewards)):
            counted = np.where(live, rewards.reshape(live.shape), 0.0).astype(np.float64)
            sums += [counted.sum(0), np.square(counted).sum(0)]

    def updated(self, env_coefficient: float) -> None:
        """The discriminators were updated: tell the schedule, and take over its new c.

        Raises:
            ValueError: The schedule's c is not a number between 0 and 1e18 for each agent.
        """
        if self.schedule is None:
            return
        number = self._live_steps.clip(min=1)
        (env_mean, env_std), (gail_mean, gail_std) = (_moments(sums, number) for sums in (self._env, self._gail))
        self.schedule.update(
            Progress(
                steps=self._steps,
                returns=np.array(self._returns, np.float64),
                live_steps=self._live_steps,
                env_mean=env_coefficient * env_mean,
                env_std=env_coefficient * env_std,
                gail_mean=gail_mean,
                gail_std=gail_std,
            )
        )
        self.array = as_array(self.schedule, self._agents)
        self._returns = []
        self._live_steps = np.zeros_like(self._live_steps)
        self._env, self._gail = np.zeros_like(self._env), np.zeros_like(self._gail)

    def state_dict(self) -> dict[str, Any] | None:
        """The schedule's state and what it has not been told yet; None without a schedule."""
        if self.schedule is None:
            return None
        return {
            "name": type(self.schedule).__name__,
            "schedule": self.schedule.state_dict(),
            "steps": self._steps,
            "returns": list(self._returns),
            "live_steps": self._live_steps.tolist(),
            "env": self._env.tolist(),
            "gail": self._gail.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Take over what `state_dict` returned. Without a schedule on either side, nothing changes.

        Raises:
            ValueError: It is of another schedule or of other agents, or damaged. Nothing has changed then.
        """
        if state is None or self.schedule is None:
            return
        if state["name"] != type(self.schedule).__name__:
            raise ValueError(f"it was saved with the schedule {state['name']}, but this one is {self.schedule!r}")
        before = self.schedule.state_dict()
        try:
            steps, returns = int(state["steps"]), [float(each) for each in state["returns"]]
            live_steps = np.array(state["live_steps"], np.int64)
            env, gail = (np.array(state[name], np.float64) for name in ("env", "gail"))
            if live_steps.shape != self._live_steps.shape or not env.shape == gail.shape == self._env.shape:
                raise ValueError(f"expected numbers of {len(self._agents)} agents, got {live_steps.shape[0]}")
            self.schedule.load_state_dict(state["schedule"])
            array = as_array(self.schedule, self._agents)
        except Exception as error:
            self.schedule.load_state_dict(before)
            if isinstance(error, ValueError):
                raise
            raise ValueError(f"the saved state of the schedule is damaged: {type(error).__name__}: {error}") from error
        self._steps, self._returns, self._running, self.array = steps, returns, None, array
        self._live_steps, self._env, self._gail = live_steps, env, gail


def check_both(state: Any, whose: str) -> None:
    """Check that a state has a matcher's and a schedule's.

    Raises:
        ValueError: It has not; ``whose`` ``state_dict()`` was expected.
    """
    if not isinstance(state, Mapping) or not {"matcher", "schedule"} <= state.keys():
        found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(
            f"expected what state_dict() of {whose} returned, with the keys 'matcher' and 'schedule', got {found}"
        )


def load_both(matcher: DistributionMatcher, mixing: Mixing | None, matcher_state: Any, schedule_state: Any) -> None:
    """Give a matcher and a coefficient what their ``state_dict`` returned.

    Raises:
        ValueError: One of the states does not fit. Nothing has changed then.
    """
    before = matcher.state_dict()
    matcher.load_state_dict(matcher_state)
    try:
        if mixing is not None:
            mixing.load_state_dict(schedule_state)
    except Exception:
        matcher.load_state_dict(before)
        raise


def _moments(sums: NDArray[np.float64], number: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and standard deviations from sums and sums of squares, [2, K]."""
    mean, square = sums / number
    variance = square - mean**2
    return mean, np.sqrt(np.where(variance > _ROUNDING * square, variance, 0.0))
