"""Any ParallelEnv as a vector environment whose sub-environments are stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.unwrap import owns_matcher
from dm2_wrappers.vector.base import Infos, MultiAgentVectorEnv, StepResult
from dm2_wrappers.vector.layout import Layout, check_parallel_env
from dm2_wrappers.vector.outcome import Outcome, Seen
from dm2_wrappers.vector.reader import ParallelReader
from dm2_wrappers.vector.reset_arguments import reset_options, sub_env_seeds


class SyncVectorEnv(MultiAgentVectorEnv):
    """``num_envs`` ParallelEnvs in one process; see :func:`dm2_wrappers.vectorize`.

    Args:
        make_env: Makes one sub-environment.
        num_envs: N.
        state: Whether to ask for the global state at every step.
        first_copy: The number of the first sub-environment in error messages, if this is a part of a larger batch.
        flatten_actions: See `Layout`.

    Attributes:
        envs: The sub-environments.
        raw_observations: What each sub-environment returned for its present agents, as it returned it.
        raw_infos: The same of infos.
    """

    def __init__(
        self,
        make_env: Callable[[], Any],
        num_envs: int,
        *,
        state: bool = False,
        first_copy: int = 0,
        flatten_actions: bool = False,
    ) -> None:
        self.num_envs = num_envs
        self.envs: list[Any] = []
        self.layout: Layout
        self._first_copy, self._state, self._flatten_actions = first_copy, state, flatten_actions
        self._readers: list[ParallelReader] = []
        self._state_size: int | None = None
        try:
            for i in range(num_envs):
                self._add(make_env(), first_copy + i)
        except BaseException:
            self.close()
            raise
        self.layout.describe(self)
        self.raw_observations: list[Any] = [{}] * num_envs
        self.raw_infos: list[Any] = [{}] * num_envs
        self._started = False

    def _add(self, env: Any, index: int) -> None:
        check_parallel_env(env, "make_env() must return")
        if owns_matcher(env):
            raise ValueError(
                "each sub-environment would train its own discriminators on a part of the data; vectorize the "
                "environment without its DM2 wrapper and wrap the result: DM2VectorEnv(vectorize(...), matcher, ...)"
            )
        if any(env is other for other in self.envs):
            raise ValueError("make_env() must make a new environment at each call, but it returned the same one twice")
        layout = Layout(env, flatten_actions=self._flatten_actions)
        if self.envs:
            self.layout.check_same(layout, index)
        else:
            self.layout = layout
        self.envs.append(env)
        self._readers.append(ParallelReader(env, self.layout, f"sub-environment {index}"))

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Start a new episode in every sub-environment; without a seed each continues its own random stream."""
        if not self.envs:
            raise RuntimeError("this vector environment is closed; make a new one")
        seeds, options = sub_env_seeds(seed, self.num_envs), reset_options(options)
        self._started = False
        seen = [self._reset_one(i, seeds[i], options) for i in range(self.num_envs)]
        self._started = True
        return self._arrays(seen, [self._state_of(i) for i in range(self.num_envs)])

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take one joint step in every sub-environment; one whose episode ends starts its next one."""
        if not self.envs or not self._started:
            raise RuntimeError(
                "step() needs an open vector environment and a first reset(), and a new one after an error in step()"
            )
        actions = self.layout.check_actions(actions, self.num_envs, self._first_copy)
        self._started = False  # if one raises an error, the others have stepped without it
        outcomes = [self._step_one(i, actions[i]) for i in range(self.num_envs)]
        final_states = [self._state_of(i) for i in range(self.num_envs)]
        states, seen = list(final_states), [outcome.seen for outcome in outcomes]
        over = np.array([outcome.over for outcome in outcomes])
        for i in map(int, np.flatnonzero(over)):
            seen[i] = self._reset_one(i, None, None)
            states[i] = self._state_of(i)
        observations, infos = self._arrays(seen, states)
        infos["final_obs"] = np.stack([outcome.final_observations for outcome in outcomes])
        infos["final_alive"] = np.stack([outcome.final_alive for outcome in outcomes])
        infos["_final_obs"] = over
        infos["broken"] = np.array([outcome.broken for outcome in outcomes])
        reported = np.array([outcome.won is not None for outcome in outcomes])
        if reported.any():
            infos["battle_won"] = np.array([bool(outcome.won) for outcome in outcomes])
            infos["_battle_won"] = reported
        if any(outcome.env_rewards is not None for outcome in outcomes):
            infos["env_reward"] = np.stack([_env_rewards(outcome) for outcome in outcomes]).astype(np.float32)
        if self._state:
            infos["final_state"] = np.stack(final_states)
        rewards = np.stack([outcome.rewards for outcome in outcomes]).astype(np.float32)
        terminations = np.stack([outcome.terminations for outcome in outcomes])
        truncations = np.stack([outcome.truncations for outcome in outcomes])
        self._started = True
        return observations, rewards, terminations, truncations, infos

    def _reset_one(self, i: int, seed: int | None, options: Mapping[str, Any] | None) -> Seen:
        self.raw_observations[i], self.raw_infos[i] = self._readers[i].reset(seed, options)
        return self._readers[i].read_reset(self.raw_observations[i], self.raw_infos[i])

    def _step_one(self, i: int, actions: NDArray[Any]) -> Outcome:
        reader, layout = self._readers[i], self.layout
        joint = {layout.agents[k]: layout.native_action(k, actions[k]) for k in map(int, np.flatnonzero(reader.present))}
        result = reader.step(joint)
        self.raw_observations[i], self.raw_infos[i] = result[0], result[4]
        return reader.read_step(*result)

    def _state_of(self, i: int) -> NDArray[np.float32]:
        if not self._state:
            return np.zeros(0, np.float32)
        try:
            state = np.asarray(self.envs[i].state(), np.float32).ravel()
        except (AttributeError, NotImplementedError) as error:
            raise ValueError(f"state=True needs an environment with state(), but {self.env_id!r} has none") from error
        self._state_size = len(state) if self._state_size is None else self._state_size
        if len(state) != self._state_size:
            raise ValueError(
                f"state() of {self.env_id!r} (sub-environment {self._first_copy + i}) returned {len(state)} numbers, "
                f"but {self._state_size} before; it must always have the same length"
            )
        return state

    def _arrays(self, seen: Sequence[Seen], states: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], Infos]:
        """New arrays at each step, so that callers may keep them."""
        infos: Infos = {"present": np.stack([one.present for one in seen]), "alive": np.stack([one.alive for one in seen])}
        if self.layout.discrete:
            infos["action_mask"] = np.stack([one.action_mask for one in seen])  # type: ignore[misc]
        if self._state:
            infos["state"] = np.stack(states)
        return np.stack([one.observations for one in seen]), infos

    def render(self) -> Any:
        """What ``render()`` of sub-environment 0 returns."""
        if not self.envs:
            raise RuntimeError("this vector environment is closed; make a new one")
        return self.envs[0].render()

    def close(self) -> None:
        """Close every sub-environment; safe to call twice."""
        envs, self.envs = self.envs, []
        for env in envs:
            env.close()


def _env_rewards(outcome: Outcome) -> NDArray[np.float64]:
    return outcome.rewards if outcome.env_rewards is None else outcome.env_rewards
