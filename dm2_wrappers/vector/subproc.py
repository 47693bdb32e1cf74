"""Any ParallelEnv as a vector environment whose sub-environments are spread over worker processes.

Each worker runs a `SyncVectorEnv` with its share of the sub-environments, and their arrays are joined here. The results are
the same as in one process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.vector.base import Infos, MultiAgentVectorEnv, StepResult
from dm2_wrappers.vector.reset_arguments import reset_options, sub_env_seeds
from dm2_wrappers.vector.sync import SyncVectorEnv
from dm2_wrappers.vector.workers import Workers


class SubprocVectorEnv(MultiAgentVectorEnv):
    """``num_envs`` ParallelEnvs in several processes; see `dm2_wrappers.vectorize`.

    Args:
        make_env: Makes one sub-environment.
        num_envs: N.
        workers: How many processes; no more than N are started.
        state: Whether to ask for the global state at every step.
        timeout: Seconds that ``reset`` and ``step`` may take. None waits forever.
    """

    def __init__(
        self,
        make_env: Callable[[], Any],
        num_envs: int,
        workers: int,
        *,
        state: bool = False,
        timeout: float | None = None,
    ) -> None:
        self.num_envs = num_envs
        self._timeout = None if timeout is None else _checks.number("timeout", timeout, above=0)
        self._shares = [share for share in np.array_split(np.arange(num_envs), workers) if len(share)]
        self.workers = Workers(
            [
                functools.partial(SyncVectorEnv, make_env, len(share), state=state, first_copy=int(share[0]))
                for share in self._shares
            ],
            [f"worker {w} (sub-environments {share[0]} to {share[-1]})" for w, share in enumerate(self._shares)],
        )
        self.layout, *others = self._ask("layout", [{}] * len(self._shares))
        try:
            for share, layout in zip(self._shares[1:], others, strict=True):
                self.layout.check_same(layout, int(share[0]))
        except ValueError:
            self.close()
            raise
        self.layout.describe(self)
        self._started = False

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Start a new episode in every sub-environment; without a seed each continues its own random stream."""
        seeds, options = sub_env_seeds(seed, self.num_envs), reset_options(options)
        parts = [{"seed": None if seed is None else [seeds[i] for i in share], "options": options} for share in self._shares]
        observations, infos = zip(*self._ask("reset", parts, self._timeout), strict=True)
        self._started = True
        return np.concatenate(observations), self._join(infos)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take one joint step in every sub-environment; one whose episode ends starts its next one."""
        if not self._started:
            raise RuntimeError("step() needs an open vector environment and a first reset()")
        actions = self.layout.check_actions(actions, self.num_envs)
        replies = self._ask("step", [{"actions": actions[share]} for share in self._shares], self._timeout)
        *arrays, infos = zip(*replies, strict=True)
        observations, rewards, terminations, truncations = map(np.concatenate, arrays)
        if any("env_reward" in info for info in infos):  # without shaping, the environment's own reward is the reward
            infos = tuple({"env_reward": reply[1], **info} for reply, info in zip(replies, infos, strict=True))
        return observations, rewards, terminations, truncations, self._join(infos)

    def render(self) -> Any:
        """What ``render()`` of sub-environment 0 returns."""
        return self._ask("render", [{}])[0]

    def close(self) -> None:
        """Close every sub-environment and end every worker; safe to call twice and from another thread."""
        self.workers.close()

    def _ask(self, command: str, arguments: Sequence[Mapping[str, Any]], timeout: float | None = None) -> list[Any]:
        return self.workers.ask(command, arguments, timeout=timeout, watch=functools.partial(self._watch, command))

    def _watch(self, command: str, workers: Iterable[int]) -> Iterable[int]:
        """For subclasses that show how the answers come in."""
        return workers

    def _join(self, parts: Sequence[Infos]) -> Infos:
        """The workers' infos as one.

        A worker leaves out ``"battle_won"`` and ``"_battle_won"`` if none of its sub-environments reported a win or a loss;
        both are then False for them.
        """
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: self._join_one(name, parts) for name in names}

    def _join_one(self, name: str, parts: Sequence[Infos]) -> NDArray[Any]:
        known = next(part[name] for part in parts if name in part)
        arrays = [
            part[name] if name in part else np.zeros(len(share), known.dtype)
            for part, share in zip(parts, self._shares, strict=True)
        ]
        if len({array.shape[1:] for array in arrays}) > 1:
            raise ValueError(
                f"{name!r} must have the same shape in every sub-environment of {self.env_id!r}, "
                f"but has {sorted({array.shape[1:] for array in arrays})}"
            )
        return np.concatenate(arrays)
