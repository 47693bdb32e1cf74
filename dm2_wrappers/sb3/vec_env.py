"""One agent's environment as Stable-Baselines3's ``VecEnv``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from dm2_wrappers.lockstep import AgentView, Lockstep
from dm2_wrappers.sb3.agent_step import AgentStep, EpisodeInfos, read_step
from dm2_wrappers.vector.base import outcomes


class AgentVecEnv(VecEnv):
    """One agent's view of all N sub-environments; it steps only inside ``IndependentLearners.learn``.

    At an episode's end SB3 finds in ``infos[n]`` what it looks for: ``"terminal_observation"``,
    ``"TimeLimit.truncated"`` (a live agent's time limit, at which SB3 bootstraps), ``"episode"`` (length, and the
    environment's own return, never the shaped one) and, where the environment reports wins, ``"battle_won"`` and
    ``"is_success"``. An episode that the simulator broke has only the first of these: it does not count.

    An agent that leaves the joint episode early is done once. While it is absent, its observations are 0.

    Attributes:
        last_step: What the last step meant for the agent.
        has_masks: Whether the environment has ever reported that an action is not available.
        env_coefficient: Factor on the environment's reward in what the learner is paid.
        bootstrap_when_dead: Whether SB3 bootstraps with the critic's value of a dead observation after all.
    """

    last_step: AgentStep
    has_masks = False

    def __init__(self, lockstep: Lockstep, agent: str, *, env_coefficient: float = 1.0) -> None:
        self.view = AgentView(lockstep, agent)
        self.env_coefficient = env_coefficient
        self.bootstrap_when_dead = False
        self._discrete = isinstance(self.view.action_space, spaces.Discrete)
        self.render_mode = None
        super().__init__(self.view.num_envs, self.view.observation_space, self.view.action_space)
        self._start()
        self.allow_reset()

    def allow_reset(self) -> None:
        """Allow `reset` until the next step: ``learn`` begins."""
        self._may_reset = True

    def _start(self) -> None:
        self._joint_lengths = np.zeros(self.num_envs, int)
        self._episode_infos = EpisodeInfos(self.num_envs)

    def reset(self) -> NDArray[np.float32]:
        """Wait until all agents reset; observations [N, D].

        Raises:
            RuntimeError: A callback resets the environment while the agent learns in it.
        """
        if not self._may_reset:
            raise RuntimeError(
                f"agent {self.view.agent!r} is learning in this environment, so a callback must not reset it: evaluate in "
                "another environment, with team.evaluate(other_env)"
            )
        observations = self.view.reset()
        self._start()
        self._look_for_masks(self.view.lockstep.present)
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Hand in the actions, wait for all other agents', and return this agent's slice of the joint step."""
        self._may_reset = False
        joint, k = self.view.step(self._actions), self.view.index
        self._joint_lengths += 1
        self.last_step = step = read_step(joint, k, self._joint_lengths)
        self._look_for_masks(joint.next_present)
        self._joint_lengths[step.joint_end] = 0
        self._dones = step.done.copy()
        # A copy of its own: SB3 adds the time limit's bootstrap in place.
        rewards = (self.env_coefficient * joint.rewards[:, k]).astype(np.float32)
        bootstrap = step.time_limit & (self.bootstrap_when_dead | ~step.dead_at_time_limit)
        final = joint.infos["final_obs"][:, k, : self.view.size]
        infos = self._episode_infos.of(step, bootstrap, final, outcomes(joint.infos))
        return self.view.observations, rewards, self._dones, infos

    def _look_for_masks(self, present: NDArray[np.bool_] | None) -> None:
        if self._discrete and not self.has_masks and present is not None:
            # An absent agent has only its no-op in any environment.
            self.has_masks = not self.view.action_masks()[present[:, self.view.index]].all()

    def mark_episode_starts(self) -> None:
        """Tell SB3 that the next observation of an agent that has just joined begins an episode.

        SB3 takes the ``dones`` of one step for the episode starts of the next one, and counts them before that. An absent
        agent is not done, so its ``dones`` are completed here, after they were counted: the rollout buffers call this
        when they store the step.
        """
        self._dones |= self.last_step.starts_next

    def close(self) -> None:
        """Do nothing: the caller who made the joint environment closes it."""

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Do nothing: SB3 calls this when a learner is built, and K learners must not reseed the joint environment."""
        return [None] * self.num_envs

    def has_attr(self, attr_name: str) -> bool:
        """Whether the sub-environments have the attribute; sb3-contrib asks for ``action_masks``."""
        return self._discrete if attr_name == "action_masks" else attr_name == "render_mode"

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of each sub-environment."""
        if not self.has_attr(attr_name):
            raise AttributeError(f"the environment of agent {self.view.agent!r} has no attribute {attr_name!r}")
        value = self.view.action_masks if attr_name == "action_masks" else None
        return [value] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: one agent must not change the joint environment."""
        raise AttributeError(f"cannot set {attr_name!r}: the environment is shared; set it on the joint environment")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method of each sub-environment; the only one is ``action_masks()``."""
        if method_name != "action_masks" or not self._discrete:
            raise AttributeError(f"the environment of agent {self.view.agent!r} has no method {method_name!r}")
        return list(self.view.action_masks()[self._rows(indices)])

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Whether each sub-environment is wrapped: never, because episode statistics come from here."""
        return [False] * len(self._rows(indices))

    def _rows(self, indices: VecEnvIndices) -> Sequence[int]:
        chosen: Iterable[int] = self._get_indices(indices)
        return list(chosen)


def innermost(env: Any) -> Any:
    """What SB3's ``VecEnvWrapper``s wrap."""
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    return env
