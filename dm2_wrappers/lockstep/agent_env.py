"""One agent's environment: its part of the joint environment."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dm2_wrappers.lockstep.scheduler import JointStep, Lockstep
from dm2_wrappers.vector import Infos
from dm2_wrappers.vector.base import own_rewards


class AgentView:
    """One agent's part of the joint environment. Single-agent interfaces are built on it."""

    def __init__(self, lockstep: Lockstep, agent: str) -> None:
        env = lockstep.env
        if agent not in env.possible_agents:
            raise ValueError(f"agent must be one of {list(env.possible_agents)}, got {agent!r}")
        self.lockstep, self.agent, self.num_envs = lockstep, agent, env.num_envs
        self.index = env.possible_agents.index(agent)
        # Copies, because learners seed and sample the spaces that they are given, and must not share their streams.
        self.observation_space = copy.deepcopy(env.observation_spaces[agent])
        self.action_space = copy.deepcopy(env.action_spaces[agent])
        self.size = int(np.prod(self.observation_space.shape))

    def reset(self) -> NDArray[np.float32]:
        """Wait for all agents' reset; return the agent's own observations [N, D]."""
        self.lockstep.request_reset(self.agent)
        return self.observations

    def step(self, actions: NDArray[Any]) -> JointStep:
        """Wait for all agents' actions; return the joint step, in which this agent has the column ``index``.

        Raises:
            ValueError: The actions are not one per sub-environment: [N], or [N, A] if they are continuous.
        """
        expected = (self.num_envs, *(self.action_space.shape or ()))
        if np.shape(actions) != expected:
            raise ValueError(f"expected actions of shape {expected} from agent {self.agent!r}, got {np.shape(actions)}")
        return self.lockstep.request_step(self.agent, actions)

    @property
    def observations(self) -> NDArray[np.float32]:
        """The agent's current observations [N, D], unpadded; a copy."""
        assert self.lockstep.observations is not None
        return self.lockstep.observations[:, self.index, : self.size].copy()

    def action_masks(self) -> NDArray[np.bool_]:
        """The agent's available actions, bool [N, A]; all true if the environment has no masks."""
        width = int(self.action_space.n)  # type: ignore[attr-defined]
        return self.lockstep.infos["action_mask"][:, self.index, :width]


class AgentVectorEnv(VectorEnv):
    """One agent's environment as a ``gymnasium.vector.VectorEnv``, for training loops such as CleanRL's.

    It can be used only inside `Lockstep.run`. It resets itself in the step that ends an episode
    (``AutoresetMode.SAME_STEP``), and the observation after the last action is in ``infos["final_obs"]`` [N, D] where
    ``infos["_final_obs"]`` [N] says that the agent's episode ended. ``infos``
    also has the agent's ``"alive"`` [N], for discrete actions ``"action_mask"`` [N, A], and the team's ``"battle_won"`` [N]
    and ``"_battle_won"`` [N] if the joint environment has them.

    Rewards may be mixed with r_gail. ``infos`` therefore also has the environment's own reward, ``"env_reward"`` [N], and,
    if the joint environment is a ``DM2VectorEnv``, ``"gail_reward"`` [N]; both are 0 at reset. If the agent's episode
    ended, which ``"_env_return"`` [N] says, ``"env_return"`` [N] is the sum of its environment rewards. Gymnasium's
    ``RecordEpisodeStatistics`` would report the sum of the mixed rewards.
    """

    def __init__(self, lockstep: Lockstep, agent: str) -> None:
        self.view = AgentView(lockstep, agent)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs = self.view.num_envs
        self.single_observation_space = self.view.observation_space
        self.single_action_space = self.view.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._returns = np.zeros(self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Wait for all agents' reset. ``seed`` is ignored, because the lockstep seeds the joint environment."""
        observations = self.view.reset()
        self._returns[:] = 0.0
        nothing, never = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        return observations, self._infos(self.view.lockstep.infos, nothing.astype(np.float32), nothing, never)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Hand in this agent's actions and wait for the joint step."""
        joint = self.view.step(np.asarray(actions))
        k = self.view.index
        terminations, truncations = joint.terminations[:, k].copy(), joint.truncations[:, k].copy()
        # An absent agent stays terminated: its episode ended when it left.
        ended = joint.present[:, k] & (terminations | truncations)
        env_rewards = own_rewards(joint.infos, joint.rewards)[:, k].copy()
        self._returns += env_rewards
        infos = self._infos(joint.infos, env_rewards, np.where(ended, self._returns, 0.0), ended)
        infos["final_obs"] = joint.infos["final_obs"][:, k, : self.view.size].copy()
        self._returns[ended] = 0.0
        return self.view.observations, joint.rewards[:, k].copy(), terminations, truncations, infos

    def _infos(
        self,
        joint: Infos,
        env_rewards: NDArray[np.float32],
        env_returns: NDArray[np.float64],
        ended: NDArray[np.bool_],
    ) -> dict[str, Any]:
        infos: dict[str, Any] = {"alive": joint["alive"][:, self.view.index].copy(), "env_reward": env_rewards}
        infos["env_return"], infos["_env_return"], infos["_final_obs"] = env_returns, ended, ended.copy()
        if "gail_reward" in joint:
            infos["gail_reward"] = joint["gail_reward"][:, self.view.index].copy()
        if isinstance(self.single_action_space, gymnasium.spaces.Discrete):
            infos["action_mask"] = self.view.action_masks().copy()
        for name in ("battle_won", "_battle_won"):
            if name in joint:
                infos[name] = joint[name].copy()
        return infos
