"""Schedules for the coefficient c: constant, falling with time, with the team's return, or with r_gail's share.

    env = dm2.DM2VectorEnv(venv, demos, coefficient=dm2.schedules.LinearFall(0.3, 0.0, steps=1_000_000))

A team learns from its experts early on, and is held near their level by them later. A schedule lets c fall in time. To
write your own, see `Schedule`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dm2_wrappers import _checks
from dm2_wrappers.matching.coefficient import Numbers, Progress, Schedule, checked_numbers

if TYPE_CHECKING:
    from dm2_wrappers.demonstrations import Demonstrations

__all__ = ["Constant", "LinearFall", "Progress", "ReturnGap", "Schedule", "VarianceShare"]


class BuiltIn(Schedule):
    """A schedule that a checkpoint can make again.

    Attributes:
        options: The arguments, in types that JSON can store.
    """

    options: dict[str, Any]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"


class Constant(BuiltIn):
    """Always the same c, as a number is.

    Args:
        c: For all agents, or ``{agent: c}``.

    Raises:
        ValueError: Not a number between 0 and 1e18 for each agent.
    """

    def __init__(self, c: Numbers) -> None:
        self.options = {"c": checked_numbers("c", c)}

    def coefficient(self) -> Numbers:
        """See `Schedule`."""
        c: Numbers = self.options["c"]
        return c


class LinearFall(BuiltIn):
    """From one c to another over so many steps, and constant afterwards.

    Args:
        start: c at step 0, for all agents, or ``{agent: c}``.
        end: c from step ``steps`` on.
        steps: Joint environment steps, summed over sub-environments.

    Raises:
        ValueError: Not a number between 0 and 1e18 for each agent, or ``steps`` is not an integer of at least 1.
    """

    def __init__(self, start: Numbers, end: Numbers = 0.0, *, steps: int) -> None:
        self.options = {
            "start": checked_numbers("start", start),
            "end": checked_numbers("end", end),
            "steps": _checks.integer("steps", _whole(steps), least=1),
        }
        self.at(0)  # raises the error about agents that differ
        self._steps = self._before = 0  # in all, and before the wrapper that counts them now was given the schedule

    def begin(self, agents: Sequence[str], demonstrations: Demonstrations) -> None:
        """See `Schedule`."""
        self._before = self._steps

    def at(self, step: int) -> Numbers:
        """C at a step."""
        return _between(self.options["start"], self.options["end"], min(1.0, step / self.options["steps"]))

    def coefficient(self) -> Numbers:
        """See `Schedule`."""
        return self.at(self._steps)

    def update(self, progress: Progress) -> None:
        """See `Schedule`."""
        self._steps = self._before + progress.steps

    def state_dict(self) -> dict[str, Any]:
        """See `Schedule`."""
        return {"steps": self._steps, "before": self._before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Schedule`."""
        steps, before = (_checks.integer(name, state.get(name, 0), least=0) for name in ("steps", "before"))
        self._steps, self._before = steps, before


class ReturnGap(BuiltIn):
    """Falls as the team's return nears the experts', and rises again if the team forgets.

    c is in proportion to ``(target - now) / (target - first)``, between 0 and 1, where ``now`` is the mean return of the
    team's newest finished episodes. Before an episode has finished it is ``start``.

    Args:
        start: c while the team's return is ``first`` or less, for all agents, or ``{agent: c}``.
        end: c once the team's return is ``target`` or more.
        target: By default the mean return of the demonstrations.
        first: By default the mean return of the first episodes that finish.
        episodes: How many of the newest episodes ``now`` is the mean of.

    Raises:
        ValueError: An option out of range. Later, without ``target``, if the matcher has `SelfImitation` alone or
            demonstrations without rewards.
    """

    def __init__(
        self,
        start: Numbers,
        end: Numbers = 0.0,
        *,
        target: float | None = None,
        first: float | None = None,
        episodes: int = 100,
    ) -> None:
        self.options = {
            "start": checked_numbers("start", start),
            "end": checked_numbers("end", end),
            "target": None if target is None else _checks.number("target", target),
            "first": None if first is None else _checks.number("first", first),
            "episodes": _checks.integer("episodes", episodes, least=1),
        }
        _between(self.options["start"], self.options["end"], 0.0)  # raises the error about agents that differ
        self._target, self._first = self.options["target"], self.options["first"]
        self._newest: list[float] = []

    def begin(self, agents: Sequence[str], demonstrations: Demonstrations) -> None:
        """See `Schedule`.

        Raises:
            ValueError: No ``target`` was given, and the matcher has no experts' demonstrations or these hold no rewards.
        """
        if self.options["target"] is None:
            mean_return, rewards = (getattr(demonstrations, name, None) for name in ("mean_return", "rewards"))
            if mean_return is None or (rewards is not None and not rewards.any()):
                what = "SelfImitation alone has none" if mean_return is None else "these hold no rewards, all of them are 0"
                raise ValueError(
                    f"ReturnGap falls towards the demonstrations' mean return, but {what}: pass target=, the return at "
                    "which c is to be at its end"
                )
            self._target = float(mean_return)

    def coefficient(self) -> Numbers:
        """See `Schedule`."""
        if not self._newest:
            return _between(self.options["start"], self.options["end"], 0.0)
        now, way = float(np.mean(self._newest)), self._target - self._first
        # A team that begins at the experts' level needs them only when it falls below.
        share = (now - self._first) / way if way > 0 else float(now >= self._target)
        return _between(self.options["start"], self.options["end"], min(1.0, max(0.0, share)))

    def update(self, progress: Progress) -> None:
        """See `Schedule`."""
        if self._first is None and len(progress.returns):
            self._first = float(np.mean(progress.returns))
        self._newest = [*self._newest, *map(float, progress.returns)][-self.options["episodes"] :]

    def state_dict(self) -> dict[str, Any]:
        """See `Schedule`."""
        return {"first": self._first, "target": self._target, "newest": list(self._newest)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Schedule`. ``first`` and ``target`` come from the state only where they are not options of this schedule."""
        newest = [_checks.number("newest", each) for each in state["newest"]]
        found = {name: None if state[name] is None else _checks.number(name, state[name]) for name in ("first", "target")}
        first, target = (found[name] if self.options[name] is None else self.options[name] for name in ("first", "target"))
        self._first, self._target, self._newest = first, target, newest


class VarianceShare(BuiltIn):
    """Each agent's c is such that c * r_gail makes up a set share of the variance of its mixed reward.

    With s its share, ``c = sqrt(s / (1 - s)) * std(env_coefficient * r_env) / std(r_gail)``; r_env and r_gail are taken as
    uncorrelated. Their variances are running means over updates. c is 0 before the first update.

    Args:
        share: Above 0 and below 1.
        largest: Limit of c, and c while the environment's reward does not vary at all. A share of rewards whose standard
            deviation is far above 1 needs a larger limit.
        updates: How many updates the running means remember.

    Raises:
        ValueError: An option out of range.
    """

    def __init__(self, share: float, *, largest: float = 1.0, updates: int = 10) -> None:
        self.options = {
            "share": _checks.number("share", share, above=0),
            "largest": checked_numbers("largest", largest),
            "updates": _checks.integer("updates", updates, least=1),
        }
        if self.options["share"] >= 1:
            raise ValueError(f"share must be below 1, got {share!r}; for r_gail alone use env_coefficient=0")
        if isinstance(self.options["largest"], Mapping):
            raise ValueError(f"largest must be one number, got {largest!r}")
        self._agents: tuple[str, ...] = ()
        self._counts, self._env, self._gail = np.zeros((3, 0))

    def begin(self, agents: Sequence[str], demonstrations: Demonstrations) -> None:
        """See `Schedule`."""
        if self._agents != tuple(agents):
            self._agents = tuple(agents)
            self._counts, self._env, self._gail = np.zeros((3, len(agents)))  # updates, variances

    def coefficient(self) -> Numbers:
        """See `Schedule`."""
        odds = self.options["share"] / (1 - self.options["share"])
        some = (self._env > 0) & (self._gail > 0)
        c = np.sqrt(odds * self._env / np.where(some, self._gail, 1.0)).clip(max=self.options["largest"])
        c = np.where(self._counts == 0, 0.0, np.where(some, c, self.options["largest"]))
        return {agent: float(each) for agent, each in zip(self._agents, c, strict=True)}

    def update(self, progress: Progress) -> None:
        """See `Schedule`."""
        live = progress.live_steps > 0
        self._counts = self._counts + live
        weight = np.where(live, 1 / self._counts.clip(1, self.options["updates"]), 0.0)
        self._env = self._env + weight * (progress.env_std**2 - self._env)
        self._gail = self._gail + weight * (progress.gail_std**2 - self._gail)

    def state_dict(self) -> dict[str, Any]:
        """See `Schedule`."""
        return {"counts": self._counts.tolist(), "env": self._env.tolist(), "gail": self._gail.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Schedule`."""
        arrays = [np.array(state[name], np.float64) for name in ("counts", "env", "gail")]
        if any(array.shape != (len(self._agents),) or not (array >= 0).all() for array in arrays):
            raise ValueError(f"expected a count and two variances for each of {len(self._agents)} agents")
        self._counts, self._env, self._gail = arrays


BUILT_IN = {kind.__name__: kind for kind in (Constant, LinearFall, ReturnGap, VarianceShare)}


def _whole(steps: Any) -> Any:
    """1e6 as 1000000, as ``learn`` takes it."""
    return int(steps) if isinstance(steps, float) and steps.is_integer() else steps


def _between(start: Numbers, end: Numbers, share: float) -> Numbers:
    """So far on the way from one c to another, for all agents or for each."""
    if isinstance(start, Mapping) or isinstance(end, Mapping):
        agents = start if isinstance(start, Mapping) else end
        assert isinstance(agents, Mapping)
        first, last = (each if isinstance(each, Mapping) else dict.fromkeys(agents, each) for each in (start, end))
        if set(first) != set(last):
            raise ValueError(f"start and end must be of the same agents, got {sorted(first)} and {sorted(last)}")
        return {agent: first[agent] * (1 - share) + last[agent] * share for agent in first}
    return start * (1 - share) + end * share
