"""One agent's environment as Stable-Baselines3's ``VecEnv``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from dm2_wrappers.lockstep import AgentView, JointStep, Lockstep
from dm2_wrappers.vector.base import joint_ends


@dataclass(frozen=True)
class AgentStep:
    """What one step meant for one agent, beyond what SB3's ``step`` returns; arrays over sub-environments [N].

    Attributes:
        present: The agent acted; it was not absent.
        alive: It was alive at the observation before its action.
        alive_next: It is alive at the observation after it.
        joint_end: The joint episode ended with this step.
        dead_at_time_limit: A time limit ended the episode of the agent while it was dead, or it died in that very step.
            SB3 must not bootstrap with its critic's value of a dead observation; the rollout buffers have a better one.
        steps_to_discard: How many of the newest steps belong to an episode that the simulator broke with this step.
        env_rewards: The environment's own rewards.
        won: Of the joint episodes that ended with this step, whether the team won. None where the environment does not
            report wins.
    """

    present: NDArray[np.bool_]
    alive: NDArray[np.bool_]
    alive_next: NDArray[np.bool_]
    joint_end: NDArray[np.bool_]
    dead_at_time_limit: NDArray[np.bool_]
    steps_to_discard: NDArray[np.int64]
    env_rewards: NDArray[np.float32]
    won: NDArray[np.bool_] | None


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
        n = self.num_envs
        self._joint_lengths = np.zeros(n, int)
        self._returns, self._lengths = np.zeros(n), np.zeros(n, int)
        self._began = time.time()

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
        present = joint.present[:, k]
        alive = joint.alive[:, k] & present
        # The columns of an absent agent stay terminated: it is done in the step in which it left, and not again.
        dones = present & (joint.terminations[:, k] | joint.truncations[:, k])
        ends = joint_ends(joint.terminations, joint.truncations)
        broken = ends & joint.infos.get("broken", np.zeros(self.num_envs, bool))
        time_limit = present & joint.truncations[:, k] & ~joint.terminations[:, k] & ~broken
        live_at_end = alive & joint.infos.get("final_alive", joint.alive)[:, k]
        bootstrap = time_limit & (self.bootstrap_when_dead | live_at_end)
        self._joint_lengths += 1
        self.last_step = AgentStep(
            present=present.copy(),
            alive=alive,
            alive_next=joint.infos["alive"][:, k] & joint.next_present[:, k],
            joint_end=ends,
            dead_at_time_limit=time_limit & ~live_at_end,
            steps_to_discard=np.where(broken, self._joint_lengths, 0),
            # A wrapper that shapes rewards leaves the environment's own in infos.
            env_rewards=joint.infos.get("env_reward", joint.rewards)[:, k].copy(),
            won=(joint.infos["battle_won"] & ends & ~broken) if "battle_won" in joint.infos else None,
        )
        self._look_for_masks(joint.next_present)
        self._joint_lengths[ends] = 0
        # The next observation begins an episode for this agent: the joint episode is new, or the agent has just joined.
        self._starts = joint.next_present[:, k] & (ends | ~present)
        self._dones = dones
        # A copy of its own: SB3 adds the time limit's bootstrap in place.
        rewards = (self.env_coefficient * joint.rewards[:, k]).astype(np.float32)
        return self.view.observations, rewards, dones, self._infos(joint, dones, bootstrap, broken)

    def _infos(
        self, joint: JointStep, dones: NDArray[np.bool_], bootstrap: NDArray[np.bool_], broken: NDArray[np.bool_]
    ) -> list[dict[str, Any]]:
        step, k = self.last_step, self.view.index
        self._returns += step.env_rewards
        self._lengths += step.present
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for n in np.flatnonzero(dones):
            infos[n] = {
                "terminal_observation": joint.infos["final_obs"][n, k, : self.view.size].copy(),
                "TimeLimit.truncated": bool(bootstrap[n]),
            }
            if broken[n]:
                continue
            seconds = round(time.time() - self._began, 6)
            infos[n]["episode"] = {"r": float(self._returns[n]), "l": int(self._lengths[n]), "t": seconds}
            if "battle_won" in joint.infos:
                infos[n]["battle_won"] = bool(joint.infos["battle_won"][n])
                if step.joint_end[n]:  # an agent that leaves before does not know yet
                    infos[n]["is_success"] = infos[n]["battle_won"]
        ended = dones | step.joint_end
        self._returns[ended], self._lengths[ended] = 0.0, 0
        return infos

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
        self._dones |= self._starts

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
