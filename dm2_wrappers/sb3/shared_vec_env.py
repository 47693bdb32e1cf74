"""All agents of all sub-environments as rows of one Stable-Baselines3 ``VecEnv``: one policy plays every agent."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from dm2_wrappers import _checks
from dm2_wrappers.lockstep import JointStep
from dm2_wrappers.sb3.agent_step import AgentStep, EpisodeInfos, read_step
from dm2_wrappers.vector import Infos, MultiAgentVectorEnv, as_vector_env
from dm2_wrappers.vector.base import EpisodeClock, joint_ends, outcomes, present_after, present_at_reset


class SharedPolicyVecEnv(VecEnv):
    """An SB3 ``VecEnv`` with N * K rows: row ``n * K + k`` is agent k of sub-environment n.

    Any unmodified SB3 algorithm then trains one policy for all agents: ``PPO("MlpPolicy", SharedPolicyVecEnv(venv))``.
    Pass `SharedPolicyDM2` to ``learn`` for distribution matching.

    A row's observation is the agent's own, padded with 0 to the widest agent's, and then the agent's number (one-hot).
    Where an episode ends SB3 finds in ``infos`` what it looks for: ``"terminal_observation"``, ``"TimeLimit.truncated"``
    (a live agent's time limit, at which SB3 bootstraps), ``"episode"`` (length, and the environment's own return) and,
    where the environment reports wins, ``"battle_won"`` and ``"is_success"``. MaskablePPO finds ``action_masks``.

    SB3 cannot drop rows. A row whose agent is absent has observation 0 (and the agent's number) and reward 0, and its
    actions are ignored. It is done once, when the agent leaves. `SharedPolicyDM2` excludes the steps of absent and dead
    agents from training, also without a matcher. Without that callback, SB3 trains on them.

    Args:
        vector_env: The environment; a ``ParallelEnv`` counts as one sub-environment. `DM2VectorEnv` around it pays r_gail
            at each step (online).
        indicator: Whether to append the agent's number.

    Attributes:
        vector_env: The multi-agent environment.
        agents: The K agents, in the order of the rows.
        last_joint_step: The newest step of all agents.
        last_step: What it meant for each row [N * K].
        bootstrap_when_dead: Whether SB3 bootstraps with the critic's value of a dead observation.

    Raises:
        TypeError: ``vector_env`` is not a multi-agent environment.
        ValueError: Continuous actions whose spaces differ between agents.
    """

    last_joint_step: JointStep
    last_step: AgentStep

    def __init__(self, vector_env: MultiAgentVectorEnv | ParallelEnv, indicator: bool = True) -> None:
        self.vector_env = env = as_vector_env(vector_env, "SharedPolicyVecEnv takes")
        self.indicator = _checks.flag("indicator", indicator)
        self.agents, self.bootstrap_when_dead = env.possible_agents, False
        self._width = max(env.observation_sizes)
        self.render_mode = env.render_mode
        super().__init__(env.num_envs * len(self.agents), self._rows_observation_space(), self._rows_action_space())
        self._seed: int | None = None
        self._clock = EpisodeClock()

    def _rows_observation_space(self) -> spaces.Box:
        """Wide enough for every agent."""
        low, high = (
            np.stack([np.pad(getattr(box, bound), (0, self._width - len(box.low))) for box in self._boxes()])
            for bound in ("low", "high")
        )
        numbers = len(self.agents) if self.indicator else 0
        return spaces.Box(
            np.append(low.min(0), np.zeros(numbers, np.float32)), np.append(high.max(0), np.ones(numbers, np.float32))
        )

    def _boxes(self) -> list[spaces.Box]:
        return [self.vector_env.observation_spaces[agent] for agent in self.agents]

    def _rows_action_space(self) -> spaces.Space[Any]:
        own = [self.vector_env.action_spaces[agent] for agent in self.agents]
        self._counts: NDArray[np.int64] | None = None  # of actions, [K], if the agents differ in them
        if self.vector_env.discrete:
            counts = np.array([int(space.n) for space in own])  # type: ignore[attr-defined]
            self._counts = counts if len(set(counts)) > 1 else None
            return spaces.Discrete(int(counts.max()))
        if different := [agent for agent, space in zip(self.agents, own, strict=True) if space != own[0]]:
            raise ValueError(
                f"one policy acts for all agents, so their action spaces must be equal, but {self.agents[0]!r} has "
                f"{own[0]} and {different[0]!r} has {self.vector_env.action_spaces[different[0]]}; use IndependentLearners"
            )
        return copy.deepcopy(own[0])

    def _check_own_actions(self, actions: NDArray[Any]) -> None:
        """Check that no row took an action that only other agents have, [N, K, 1] if actions are discrete."""
        if self._counts is None:
            return
        wrong = (actions[..., 0] >= self._counts) & self._present
        for n, k in np.argwhere(wrong)[:1]:
            raise ValueError(
                f"one policy acts for all agents, and agent {self.agents[k]!r} has only {self._counts[k]} of its "
                f"{self._counts.max()} actions, but was given the action {actions[n, k, 0]}: use MaskablePPO, whose masks "
                "leave out what an agent does not have, or IndependentLearners"
            )

    def rows(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The policy's observations [N * K, D] of joint observations [N, K, D]; a copy."""
        n, k, _ = observations.shape
        parts = [observations]
        if self.indicator:
            parts.append(np.broadcast_to(np.eye(k, dtype=np.float32), (n, k, k)))
        return np.concatenate(parts, axis=2, dtype=np.float32).reshape(n * k, -1)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next `reset`: sub-environment n with ``seed + n``. SB3 calls this with ``PPO(..., seed=...)``."""
        self._seed = seed
        of_envs = [None if seed is None else seed + n for n in range(self.vector_env.num_envs)]
        return [own for own in of_envs for _ in self.agents]

    def reset(self) -> NDArray[np.float32]:
        """Start a new episode in every sub-environment; observations [N * K, D]."""
        observations, infos = self.vector_env.reset(seed=self._seed)
        self._seed = None
        self._see(observations, infos, present_at_reset(infos))
        self._clock.restart()
        self._joint_lengths = np.zeros(self.vector_env.num_envs, int)
        self._episode_infos = EpisodeInfos(self.num_envs)
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return self.rows(observations)

    def _see(self, observations: NDArray[np.float32], infos: Infos, present: NDArray[np.bool_]) -> None:
        # A copy: the environment may use its array again.
        self._observations, self._infos, self._present = np.array(observations), infos, present

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions [N * K] for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step every sub-environment."""
        before, present, alive = self._observations, self._present, np.array(self._infos["alive"], dtype=bool)
        actions = np.asarray(self._actions)
        self._check_own_actions(actions.reshape(present.shape[0], present.shape[1], -1))
        actions = actions.reshape(self.vector_env.num_envs, len(self.agents), *actions.shape[1:])
        observations, rewards, terminations, truncations, infos = self.vector_env.step(actions)
        self._see(observations, infos, present_after(terminations, truncations, infos))
        self.last_joint_step = joint = JointStep(
            observations=before,
            present=present,
            alive=alive,
            actions=actions,
            rewards=np.array(rewards),
            terminations=terminations,
            truncations=truncations,
            next_observations=observations,
            next_present=self._present,
            infos=infos,
            time=self._clock.tick(joint_ends(terminations, truncations)),
        )
        self._joint_lengths += 1
        self.last_step = step = read_step(joint, slice(None), self._joint_lengths).flat()
        self._joint_lengths[step.joint_end[:: len(self.agents)]] = 0
        self._dones = step.done.copy()
        won = np.repeat(outcomes(infos), len(self.agents))
        bootstrap = step.time_limit & (self.bootstrap_when_dead | ~step.dead_at_time_limit)
        row_infos = self._episode_infos.of(step, bootstrap, self.rows(infos["final_obs"]), won)
        paid = np.array(rewards, np.float32).reshape(-1)
        return self.rows(observations), paid, self._dones, row_infos

    def mark_episode_starts(self) -> None:
        """Tell SB3 that the next observation of an agent that has just joined begins an episode; see `AgentVecEnv`."""
        self._dones |= self.last_step.starts_next

    def action_masks(self) -> NDArray[np.bool_]:
        """The available actions of each row, bool [N * K, A]; an absent agent has only its no-op."""
        masks = self._infos["action_mask"]
        return np.asarray(masks, dtype=bool).reshape(self.num_envs, -1)

    def render(self, mode: str | None = None) -> Any:
        """Draw sub-environment 0."""
        return self.vector_env.render()

    def close(self) -> None:
        """Close the multi-agent environment."""
        self.vector_env.close()

    def has_attr(self, attr_name: str) -> bool:
        """Whether the rows have the attribute; sb3-contrib asks for ``action_masks``."""
        return self.vector_env.discrete if attr_name == "action_masks" else attr_name == "render_mode"

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of each row."""
        if not self.has_attr(attr_name):
            raise AttributeError(f"the rows of a SharedPolicyVecEnv have no attribute {attr_name!r}: use vector_env")
        value = self.action_masks if attr_name == "action_masks" else self.render_mode
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: rows are no environments."""
        raise AttributeError(f"cannot set {attr_name!r} on rows of a SharedPolicyVecEnv: set it on vector_env")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method of each row; the only one is ``action_masks()``."""
        if method_name != "action_masks" or not self.vector_env.discrete:
            raise AttributeError(f"the rows of a SharedPolicyVecEnv have no method {method_name!r}: call it on vector_env")
        masks = self.action_masks()
        return [masks[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Whether each row is wrapped: never, because episode statistics come from here."""
        return [False for _ in self._get_indices(indices)]
