"""Any ParallelEnv as a vector environment: copies stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.flatten import action_mask, flatten
from dm2_wrappers.vector import Infos, MultiAgentVectorEnv, StepResult
from dm2_wrappers.vector_layout import Layout


def copy_seeds(seed: int | Sequence[int] | None, num_envs: int) -> list[int | None]:
    """One seed for each copy: ``seed + i`` of an integer.

    Raises:
        ValueError: A sequence of another length than there are copies.
    """
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, int | np.integer):
        return [int(seed) + i for i in range(num_envs)]
    if len(seed) != num_envs:
        raise ValueError(f"seed must be an integer or one for each of {num_envs} copies, but {len(seed)} came")
    return [int(one) for one in seed]


class SyncVectorEnv(MultiAgentVectorEnv):
    """``num_envs`` copies of a ParallelEnv in one process; see :func:`dm2_wrappers.vectorize`.

    Args:
        make_env: Makes one copy.
        num_envs: N.
        first_copy: The number of the first copy in error messages, where this is one part of a larger batch.
    """

    def __init__(self, make_env: Callable[[], Any], num_envs: int, *, first_copy: int = 0) -> None:
        self.num_envs = num_envs
        self.envs: list[Any] = []
        self.layout: Layout
        self._first_copy = first_copy
        try:
            for i in range(num_envs):
                self._add(make_env(), first_copy + i)
        except BaseException:
            self.close()
            raise
        self.possible_agents = self.layout.agents
        self.observation_spaces = self.layout.observation_spaces
        self.action_spaces = self.layout.action_spaces
        self.env_id = self.layout.env_id
        self._started = False

    def _add(self, env: Any, copy: int) -> None:
        if any(env is other for other in self.envs):
            raise ValueError("make_env() must make a new environment at each call, but it returned the same one twice")
        layout = Layout(env)
        if self.envs and not layout.same_as(self.layout):
            raise ValueError(f"copy {copy} has other agents or spaces than the first; make_env() must make equal copies")
        self.envs.append(env)
        self.layout = layout

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Start a new episode in every copy; without a seed each continues its own random stream."""
        seeds = copy_seeds(seed, self.num_envs)
        if not self.envs:
            raise RuntimeError("this vector environment is closed; make a new one")
        self._ended = np.zeros((2, self.num_envs, len(self.possible_agents)), dtype=bool)
        observations, infos = self._blank()
        for i in range(self.num_envs):
            arguments = {} if options is None else {"options": dict(options)}
            self._start(i, observations, infos, seed=seeds[i], **arguments)
        self._started = True
        return observations, infos

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take one joint step in every copy; a copy whose episode ends starts its next one."""
        if not self.envs or not self._started:
            raise RuntimeError("step() needs an open vector environment and a first reset()")
        actions = self.layout.check_actions(actions, self.num_envs, self._first_copy)
        observations, infos = self._blank()
        infos["final_obs"] = np.zeros_like(observations)
        infos["final_alive"] = np.zeros_like(infos["alive"])
        infos["broken"] = np.zeros(self.num_envs, dtype=bool)
        if "state" in infos:
            infos["final_state"] = np.zeros_like(infos["state"])
        rewards = np.zeros(observations.shape[:2], np.float32)
        ended = np.zeros_like(self._ended)
        for i in range(self.num_envs):
            seen, agent_infos = self._step_copy(i, actions[i], rewards[i], infos)
            ended[:, i] = self._ended[:, i]
            if ended[:, i].any(axis=0).all():
                self._start(i, observations, infos)
            else:
                self._show(i, seen, agent_infos, observations, infos)
        return observations, rewards, ended[0], ended[1], infos

    def _step_copy(self, i: int, actions: NDArray[Any], rewards: NDArray[np.float32], infos: Infos) -> tuple[Any, Any]:
        """Step copy i and write down what followed; its agents' observations and infos."""
        env, layout = self.envs[i], self.layout
        present = set(env.agents)
        joint = {agent: layout.native_action(k, actions[k]) for k, agent in enumerate(layout.agents) if agent in present}
        seen, reward, terminations, truncations, agent_infos = env.step(joint)
        present = set(env.agents)
        for k, agent in enumerate(layout.agents):
            rewards[k] = reward.get(agent, 0.0)
            if agent in seen:
                features = flatten(layout.native_observation_spaces[agent], seen[agent])
                infos["final_obs"][i, k, : layout.sizes[k]] = features
                alive = agent_infos.get(agent, {}).get("alive", not terminations.get(agent, False))
                infos["final_alive"][i, k] = alive
            if agent in terminations or agent in present:
                self._ended[:, i, k] = terminations.get(agent, False), truncations.get(agent, False)
            if agent not in present and not self._ended[:, i, k].any():
                self._ended[0, i, k] = True  # gone without a word: it died
        infos["broken"][i] = any(info.get("broken", False) for info in agent_infos.values())
        for info in agent_infos.values():
            if "battle_won" in info:
                won = infos.setdefault("battle_won", np.zeros(self.num_envs, dtype=bool))
                won[i] |= bool(info["battle_won"])
        if "final_state" in infos:
            infos["final_state"][i] = np.ravel(env.state())
        return seen, agent_infos

    def _start(self, i: int, observations: NDArray[np.float32], infos: Infos, **arguments: Any) -> None:
        """Begin an episode in copy i."""
        seen, agent_infos = self.envs[i].reset(**arguments)
        present = set(self.envs[i].agents)
        self._ended[:, i] = False
        self._ended[0, i] = [agent not in present for agent in self.layout.agents]
        self._show(i, seen, agent_infos, observations, infos)

    def _show(self, i: int, seen: Any, agent_infos: Any, observations: NDArray[np.float32], infos: Infos) -> None:
        """Write what copy i's present agents see before their next action."""
        layout = self.layout
        for k in np.flatnonzero(~self._ended[:, i].any(axis=0)):
            agent = layout.agents[k]
            info = agent_infos.get(agent, {})
            features = flatten(layout.native_observation_spaces[agent], seen[agent])
            observations[i, k, : layout.sizes[k]] = features
            infos["alive"][i, k] = info.get("alive", True)
            if layout.discrete:
                mask = action_mask(seen[agent], info)
                infos["action_mask"][i, k, : layout.action_sizes[k]] = True if mask is None else mask
        if "state" in infos:
            infos["state"][i] = np.ravel(self.envs[i].state())

    def _blank(self) -> tuple[NDArray[np.float32], Infos]:
        """Arrays as if nobody were there: new ones at each step, so that callers may keep them."""
        layout, shape = self.layout, (self.num_envs, len(self.layout.agents))
        infos: Infos = {"alive": np.zeros(shape, dtype=bool)}
        if layout.discrete:
            infos["action_mask"] = np.zeros((*shape, max(layout.action_sizes)), dtype=bool)
            infos["action_mask"][..., 0] = True
        if layout.state_size is not None:
            infos["state"] = np.zeros((self.num_envs, layout.state_size), np.float32)
        return np.zeros((*shape, max(layout.sizes)), np.float32), infos

    def render(self) -> Any:
        """What copy 0's ``render()`` returns."""
        return self.envs[0].render()

    def close(self) -> None:
        """Close every copy; safe to call twice."""
        envs, self.envs = self.envs, []
        for env in envs:
            env.close()
