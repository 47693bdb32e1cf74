"""SMAC as a vector environment: one StarCraft per sub-environment, each in its own worker process."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers._extras import require
from dm2_wrappers.envs.action_masks import available_actions
from dm2_wrappers.envs.options import checked_num_envs
from dm2_wrappers.envs.smac.parallel import NO_OP, STOP, SMACParallelEnv
from dm2_wrappers.vector import Infos, StepResult
from dm2_wrappers.vector.subproc import SubprocVectorEnv


class SMACVectorEnv(SubprocVectorEnv):
    """N StarCrafts stepped side by side; see `MultiAgentVectorEnv` for the arrays.

    A sub-environment whose StarCraft dies or hangs starts another; the episode ends as a truncation with
    ``infos["broken"]`` and a zero reward, and recorders, matchers and learners discard it. Made by
    `dm2_wrappers.envs.smac.vector_env`.

    Attributes:
        broken_episodes: How many episodes broke so far.
    """

    def __init__(
        self,
        make_env: Callable[[], SMACParallelEnv],
        num_envs: int,
        *,
        seed: int | None = None,
        replace_unavailable: bool = False,
        progress_bar: bool = True,
    ) -> None:
        self._seed = _checks.integer("seed", seed, none=True)
        self._replace_unavailable, self._progress_bar = replace_unavailable, progress_bar
        self._masks: NDArray[np.bool_] | None = None
        self._alive: NDArray[np.bool_]
        self.broken_episodes = 0
        super().__init__(make_env, num_envs, workers=num_envs, state=True)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Start a new battle everywhere; an integer seeds sub-environment i with ``seed + i``, which restarts StarCraft."""
        if self._masks is None and seed is None:
            seed = self._seed
        observations, infos = super().reset(seed=seed, options=options)
        self._masks, self._alive = infos["action_mask"], infos["alive"]
        return observations, infos

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take one joint step in every sub-environment; one whose episode ends starts its next one.

        Raises:
            RuntimeError: Before the first ``reset``, after ``close``, or a worker failed (all are ended then).
            ValueError: Wrong shape or type, or an unavailable action with ``invalid_action="error"``; nothing has changed.
        """
        if self._masks is None:
            raise RuntimeError("call reset() before step()")
        # Checked here: an error in a worker would end all StarCrafts.
        no_op = np.where(self._alive, STOP, NO_OP)
        actions = available_actions(actions, self._masks, no_op, self.possible_agents, replace=self._replace_unavailable)
        result = super().step(actions)
        infos = result[4]
        self._masks, self._alive = infos["action_mask"], infos["alive"]
        self.broken_episodes += int(infos["broken"].sum())
        return result

    def _watch(self, command: str, workers: Iterable[int]) -> Iterable[int]:
        if command != "reset" or self._masks is not None or not self._progress_bar:
            return workers
        tqdm = require("tqdm", "smac")
        return tqdm.tqdm(workers, desc=f"starting StarCraft ({self.env_id})", total=self.num_envs, unit="env", leave=False)


def make(
    parallel_env: Callable[..., SMACParallelEnv],
    map_name: str,
    num_envs: int,
    *,
    seed: int | None,
    progress_bar: bool,
    **options: Any,
) -> SMACVectorEnv:
    """See `dm2_wrappers.envs.smac.vector_env`."""
    num_envs = checked_num_envs(num_envs)
    make_env = functools.partial(parallel_env, map_name, **options)
    make_env().close()  # a wrong option is an error here, in one sentence, and not in a worker; StarCraft does not start
    replace = options.get("invalid_action") == "noop"
    return SMACVectorEnv(make_env, num_envs, seed=seed, replace_unavailable=replace, progress_bar=progress_bar)
