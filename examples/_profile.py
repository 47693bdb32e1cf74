"""Where a run's time goes: stopwatches around the methods that do the work, without a change to the objects.

A stopwatch stops while another one runs within it, so no second counts twice.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import dm2_wrappers as dm2


class Profile:
    """Named stopwatches on methods of classes.

    Use it in a ``with`` block, which gives the classes their methods back.

    Attributes:
        seconds: What each stopwatch shows.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = self._start = time.perf_counter()
        self._originals = contextlib.ExitStack()

    def __enter__(self) -> Profile:
        self._since = self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self._originals.close()

    def watch(self, name: str, owner: type, *methods: str) -> None:
        """Let the stopwatch ``name`` run whenever one of these methods does; methods that ``owner`` lacks are left out."""
        self.seconds.setdefault(name, 0.0)
        for method in methods:
            if not callable(original := getattr(owner, method, None)) or hasattr(original, "watched_by"):
                continue
            own = method in vars(owner)  # otherwise it is inherited
            restore = (
                functools.partial(setattr, owner, method, original) if own else functools.partial(delattr, owner, method)
            )
            setattr(owner, method, self._timed(name, original))
            self._originals.callback(restore)

    def table(self) -> str:
        """A line for each stopwatch, and one for the rest of the time since the ``with`` block began."""
        total = time.perf_counter() - self._start
        shown = {**self.seconds, "rest": total - sum(self.seconds.values())}
        lines = [f"{name:<16} {100 * own / total:5.1f} %  {own:9.1f} s" for name, own in shown.items()]
        return "\n".join([*lines, f"{'total':<16} 100.0 %  {total:9.1f} s"])

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._running.append(name)
            try:
                return method(*args, **kwargs)
            finally:
                self._switch()
                self._running.pop()

        timed.watched_by = self  # type: ignore[attr-defined]
        return timed

    def _switch(self) -> None:
        """Credit the time since the last switch to the innermost stopwatch."""
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


@contextlib.contextmanager
def printed(wanted: bool, team: dm2.sb3.IndependentLearners, *envs: dm2.MultiAgentVectorEnv) -> Iterator[None]:
    """If wanted, print at the end where the time in this block went.

    Args:
        wanted: Otherwise nothing happens.
        team: Its policies, learning and discriminators are timed.
        *envs: The environments that it plays in.
    """
    if not wanted:
        yield
        return
    with Profile() as profile:
        for env in envs:
            profile.watch("environment", type(env), "reset", "step")
        for model in team.models.values():
            # `forward` in rollouts, `predict` in evaluations, `predict_values` at the end of a rollout.
            profile.watch("policies", type(model.policy), "forward", "predict", "predict_values")
            profile.watch("learning", type(model), "train")
        profile.watch("discriminators", dm2.DistributionMatcher, "record", "update", "rewards")
        try:
            yield
        finally:
            print(f"\n{profile.table()}")
