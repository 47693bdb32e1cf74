"""DM2 around an environment: pay every agent r_env + c * r_gail, and learn from what it sees.

This is Algorithm 1 "online": the reward is paid at step time under the present discriminators, and ``update()`` (line 9,
the online discriminator updater hook) is called between rollouts. Any learner can use it as it is. The exact order of
Algorithm 1, in which the reward is computed after the update, is in ``dm2_wrappers.sb3``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.flatten import environment_id, flat_space, flatten
from dm2_wrappers.matcher import DistributionMatcher
from dm2_wrappers.rollout import Rollout
from dm2_wrappers.vector import Infos, MultiAgentVectorEnv, StepResult

Coefficient = float | Mapping[str, float]


def coefficients(coefficient: Coefficient, agents: Sequence[str]) -> NDArray[np.float32]:
    """The paper's c of each agent, float32 [K], from one number for all or ``{agent: c}``.

    Raises:
        ValueError: Not a finite number of at least 0 for each agent.
    """
    if isinstance(coefficient, Mapping):
        if set(coefficient) != set(agents):
            raise ValueError(f"coefficient must have one number for each of {list(agents)}, got {sorted(coefficient)}")
        values = [coefficient[agent] for agent in agents]
    else:
        values = [coefficient] * len(agents)
    for value in values:
        if not isinstance(value, int | float | np.number) or not np.isfinite(value) or value < 0:
            raise ValueError(f"coefficient must be a finite number of at least 0, got {value!r}")
    return np.array(values, np.float32)


class _Mixer:
    """What both wrappers do: mix rewards, collect observations, update when it is time.

    Attributes:
        matcher: The discriminators; share it, never copy it.
        coefficient: The paper's c, for all agents or ``{agent: c}``; may be changed at any time.
        env_coefficient: Factor on the environment's reward; 0 is GAIL alone.
        training: While False nothing is recorded and ``update_every`` does not count; rewards are still mixed.
        metrics: What the newest ``update()`` returned.
    """

    def _set_up(
        self,
        demos_or_matcher: Demonstrations | DistributionMatcher,
        coefficient: Coefficient,
        env_coefficient: float,
        update_every: int | None,
    ) -> None:
        if (
            not isinstance(env_coefficient, int | float | np.number)
            or not np.isfinite(env_coefficient)
            or env_coefficient < 0
        ):
            raise ValueError(f"env_coefficient must be a finite number of at least 0, got {env_coefficient!r}")
        if update_every is not None and update_every < 1:
            raise ValueError(f"update_every must be None or at least 1 environment step, got {update_every!r}")
        if isinstance(demos_or_matcher, Demonstrations):
            demos_or_matcher = DistributionMatcher(demos_or_matcher)
        if not isinstance(demos_or_matcher, DistributionMatcher):
            raise TypeError(
                f"expected Demonstrations or a DistributionMatcher, got {type(demos_or_matcher).__name__}; "
                "read a file with Demonstrations.load(path)"
            )
        self.matcher = demos_or_matcher
        coefficients(coefficient, self.matcher.agents)
        self.coefficient: Coefficient = coefficient
        self.env_coefficient = float(env_coefficient)
        self.update_every, self.training = update_every, True
        self.metrics: dict[str, float] = {}
        self._rollout = Rollout()
        self._unrecorded_steps = 0

    def update(self) -> dict[str, float]:
        """Lines 8-9: train every agent's discriminator on what was seen since the last update; its metrics."""
        self.flush()
        self.metrics = self.matcher.update()
        return self.metrics

    def flush(self) -> None:
        """Hand what was seen since the last update to the matcher now; ``update_every`` counts from here."""
        self._unrecorded_steps = 0
        self._hand_over()

    def _hand_over(self) -> None:
        if len(self._rollout):
            observations, alive, broken = self._rollout.take()
            self.matcher.record(observations, alive, broken=broken)

    def _saw(
        self,
        observations: NDArray[np.float32],
        alive: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        broken: NDArray[np.bool_] | None,
    ) -> None:
        """Line 6: one more joint step was taken from these observations [N, K, D]."""
        if not self.training:
            return
        self._rollout.append(observations, alive, ended, broken)
        self._unrecorded_steps += len(observations)
        if len(self._rollout) * len(observations) >= self.matcher.buffer_size:
            self._hand_over()  # nobody asks for an update: the matcher keeps the newest, memory stays bounded
        if self.update_every is not None and self._unrecorded_steps >= self.update_every:
            self.update()

    def _check_rewards(self, rewards: NDArray[Any]) -> None:
        if not np.isfinite(rewards).all():
            raise ValueError(f"the environment's reward must be a finite number, got {rewards[~np.isfinite(rewards)][0]}")


class DM2ParallelEnv(_Mixer, BaseParallelWrapper):
    """A PettingZoo ``ParallelEnv`` whose rewards are r_env + c * r_gail (Algorithm 1, line 11).

    Still a ``ParallelEnv``. ``infos[agent]`` gains ``"env_reward"`` and ``"gail_reward"``; everything else is passed
    through. An environment that does not say in ``infos[agent]["alive"]`` whether an agent is alive counts all in
    ``agents`` as alive.

    Args:
        env: Any ``ParallelEnv`` with the demonstrations' agents, with or without action masks.
        demos_or_matcher: ``Demonstrations``, or a ``DistributionMatcher`` made with options of its own.
        coefficient: The paper's c, for all agents or ``{agent: c}``.
        env_coefficient: Factor on the environment's reward; 0 is GAIL alone.
        update_every: Call ``update()`` by itself every so many joint steps; None: call it after each rollout.

    Raises:
        ValueError: A coefficient out of range, or demonstrations of other agents or observation sizes.
    """

    def __init__(
        self,
        env: ParallelEnv,
        demos_or_matcher: Demonstrations | DistributionMatcher,
        *,
        coefficient: Coefficient,
        env_coefficient: float = 1.0,
        update_every: int | None = None,
    ) -> None:
        super().__init__(env)
        self._set_up(demos_or_matcher, coefficient, env_coefficient, update_every)
        self._index = {agent: k for k, agent in enumerate(env.possible_agents)}
        self._spaces = {agent: env.observation_space(agent) for agent in env.possible_agents}
        sizes = [flat_space(space).shape[0] for space in self._spaces.values()]
        self.matcher.demonstrations.check_compatible(env.possible_agents, sizes, environment_id(env))
        self._shape = (len(sizes), max(sizes))
        self._observations = np.zeros(self._shape, np.float32)
        self._alive = np.zeros(len(sizes), bool)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start a new episode."""
        observations, infos = super().reset(seed=seed, options=options)
        self._rollout.cut()
        self._look(observations, infos)
        return observations, infos

    def step(self, actions: dict[str, Any]) -> tuple[Any, dict[str, float], Any, Any, dict[str, Any]]:
        """Take one joint step; the rewards are the mixed ones."""
        present = list(self.env.agents)
        before, alive = self._observations, self._alive
        observations, env_rewards, terminations, truncations, infos = super().step(actions)
        gail_rewards = self.matcher.rewards(before, alive)
        self._check_rewards(np.array([env_rewards[agent] for agent in present], dtype=np.float64))
        rewards, c = {}, coefficients(self.coefficient, self.matcher.agents)
        for agent in present:
            k = self._index[agent]
            gail = float(gail_rewards[k])
            rewards[agent] = self.env_coefficient * float(env_rewards[agent]) + float(c[k]) * gail
            infos[agent] = {**infos.get(agent, {}), "env_reward": float(env_rewards[agent]), "gail_reward": gail}
        self._look(observations, infos)
        broken = any(info.get("broken", False) for info in infos.values())
        self._saw(before[None], alive[None], np.array([not self.env.agents]), np.array([broken]))
        return observations, rewards, terminations, truncations, infos

    def _look(self, observations: Mapping[str, Any], infos: Mapping[str, Any]) -> None:
        """Keep what everybody sees now: the next step's reward and record are about it."""
        self._observations = np.zeros(self._shape, np.float32)
        self._alive = np.zeros(self._shape[0], bool)
        for agent in self.env.agents:
            k, flat = self._index[agent], flatten(self._spaces[agent], observations[agent])
            self._observations[k, : len(flat)] = flat
            self._alive[k] = infos.get(agent, {}).get("alive", True)


class DM2VectorEnv(_Mixer, MultiAgentVectorEnv):
    """A batched environment whose rewards are r_env + c * r_gail; one matcher for all copies.

    ``infos`` gains ``"env_reward"`` and ``"gail_reward"``, both [N, K]. Arguments and errors as for `DM2ParallelEnv`;
    ``update_every`` counts joint steps summed over copies.
    """

    def __init__(
        self,
        venv: MultiAgentVectorEnv,
        demos_or_matcher: Demonstrations | DistributionMatcher,
        *,
        coefficient: Coefficient,
        env_coefficient: float = 1.0,
        update_every: int | None = None,
    ) -> None:
        self.env = venv
        self.num_envs, self.possible_agents, self.env_id = venv.num_envs, venv.possible_agents, venv.env_id
        self.observation_spaces, self.action_spaces = venv.observation_spaces, venv.action_spaces
        self._set_up(demos_or_matcher, coefficient, env_coefficient, update_every)
        self.matcher.demonstrations.check_compatible(venv.possible_agents, venv.observation_sizes, venv.env_id)
        self._observations: NDArray[np.float32] | None = None
        self._alive: NDArray[np.bool_]

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Start a new episode in every copy."""
        self._observations, infos = self.env.reset(seed=seed, options=options)
        self._rollout.cut()
        self._alive = infos["alive"]
        return self._observations, infos

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take one joint step in every copy; the rewards are the mixed ones."""
        if self._observations is None:
            raise RuntimeError("call reset() before step()")
        before, alive = self._observations, self._alive
        self._observations, env_rewards, terminations, truncations, infos = self.env.step(actions)
        self._alive = infos["alive"]
        self._check_rewards(env_rewards)
        gail_rewards = self.matcher.rewards(before, alive)
        c = coefficients(self.coefficient, self.possible_agents)
        rewards = (self.env_coefficient * env_rewards + c * gail_rewards).astype(np.float32)
        infos = {**infos, "env_reward": env_rewards, "gail_reward": gail_rewards}
        ended = np.all(terminations | truncations, axis=1)
        self._saw(before, alive, ended, infos.get("broken"))
        return self._observations, rewards, terminations, truncations, infos

    def close(self) -> None:
        """Close the wrapped environment."""
        self.env.close()
