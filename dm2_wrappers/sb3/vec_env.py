"""One agent's environment as Stable-Baselines3's ``VecEnv``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from dm2_wrappers.lockstep import AgentView, Lockstep


class AgentVecEnv(VecEnv):
    """N copies of one agent's view of the joint environment; steps only inside ``IndependentLearners.learn``.

    At an episode's end SB3 finds in ``infos[n]`` what it looks for: ``"terminal_observation"``,
    ``"TimeLimit.truncated"`` (a living agent's time limit: SB3 then bootstraps) and ``"episode"`` (the environment's own
    return, never the shaped one, and length), and ``"battle_won"`` where the environment reports it. An episode that the
    simulator broke ends with none of these but the first: it does not count.

    Attributes:
        live: Whether the agent was alive at the observation before the last step, [N].
        cut: Whether the last step ended by a time limit the episode of an agent that was dead, or died in it, [N]: SB3
            must not bootstrap with its critic's value of being dead; `dm2_wrappers.sb3.buffers` does it with a better one.
        over: Whether the last step ended the joint episode, [N].
        forget: How many of the newest steps belong to an episode that broke with the last step, [N]; 0: none.
        alive: Whether the agent is alive at the present observation, [N].
        env_rewards: The environment's own rewards of the last step, [N].
        env_coefficient: Factor on the environment's reward in what the learner is paid.
        critic_knows_death: Whether SB3 is to bootstrap with the critic's value of being dead after all.
    """

    def __init__(self, lockstep: Lockstep, agent: str, *, env_coefficient: float = 1.0) -> None:
        self.view = AgentView(lockstep, agent)
        self.env_coefficient = env_coefficient
        self.critic_knows_death = False
        self._masked = isinstance(self.view.action_space, spaces.Discrete)
        self.render_mode = None
        super().__init__(self.view.num_envs, self.view.observation_space, self.view.action_space)
        self._start()

    def _start(self) -> None:
        n = self.num_envs
        self.live, self.alive, self.cut = np.ones(n, bool), np.ones(n, bool), np.zeros(n, bool)
        self.over: NDArray[np.bool_] = np.zeros(n, bool)
        self.forget = np.zeros(n, int)
        self._left = np.zeros(n, bool)  # has left this joint episode for good
        self._joint_lengths = np.zeros(n, int)
        self.env_rewards = np.zeros(n, np.float32)
        self._returns, self._lengths = np.zeros(n), np.zeros(n, int)
        self._began = time.time()

    def reset(self) -> NDArray[np.float32]:
        """Wait for all agents' reset; observations [N, D]."""
        observations = self.view.reset()
        self._start()
        self.alive = self.view.lockstep.infos["alive"][:, self.view.index].copy()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Hand in the actions, wait for everybody's, and return this agent's slice of the joint step."""
        joint, k = self.view.step(self._actions), self.view.index
        self.live = joint.alive[:, k] & ~self._left
        self.alive = joint.infos["alive"][:, k].copy()
        dones = joint.terminations[:, k] | joint.truncations[:, k]
        joint_dones = (joint.terminations | joint.truncations).all(axis=1)
        broken = joint_dones & joint.infos.get("broken", np.zeros(self.num_envs, bool))
        self._joint_lengths += 1
        self.over = np.asarray(joint_dones)
        self.forget = np.where(broken, self._joint_lengths, 0)
        self._joint_lengths[joint_dones] = 0
        time_limit = joint.truncations[:, k] & ~joint.terminations[:, k] & ~broken
        alive_at_end = joint.infos.get("final_alive", joint.alive)[:, k]
        bootstrap = time_limit & ~self._left & (self.critic_knows_death | (self.live & alive_at_end))
        self.cut = time_limit & ~self._left & ~(self.live & alive_at_end)
        # A wrapper that shapes rewards leaves the environment's own in infos.
        self.env_rewards = joint.infos.get("env_reward", joint.rewards)[:, k].copy()
        self._returns += self.env_rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for n in np.flatnonzero(dones & ~self._left):
            infos[n] = {
                "terminal_observation": joint.infos["final_obs"][n, k, : self.view.size].copy(),
                "TimeLimit.truncated": bool(bootstrap[n]),
            }
            if broken[n]:
                continue
            infos[n] |= {
                "episode": {
                    "r": float(self._returns[n]),
                    "l": int(self._lengths[n]),
                    "t": round(time.time() - self._began, 6),
                },
            }
            if "battle_won" in joint.infos:
                infos[n]["battle_won"] = bool(joint.infos["battle_won"][n])
        self._returns[dones], self._lengths[dones] = 0.0, 0
        self._left = (self._left | dones) & ~joint_dones
        # A copy of its own: SB3 adds the time limit's bootstrap in place.
        rewards = (self.env_coefficient * joint.rewards[:, k]).astype(np.float32)
        return self.view.observations, rewards, dones, infos

    def close(self) -> None:
        """Nothing: the joint environment belongs to whoever made it."""

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Nothing: SB3 calls this when a learner is built, and K learners must not reseed the joint environment."""
        return [None] * self.num_envs

    def has_attr(self, attr_name: str) -> bool:
        """Whether the copies have the attribute: ``action_masks`` is how sb3-contrib asks for masks."""
        return self._masked if attr_name == "action_masks" else attr_name == "render_mode"

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of each copy."""
        if not self.has_attr(attr_name):
            raise AttributeError(f"the environment of agent {self.view.agent!r} has no attribute {attr_name!r}")
        value = self.view.action_masks if attr_name == "action_masks" else None
        return [value] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused: one agent must not change the joint environment."""
        raise AttributeError(f"cannot set {attr_name!r}: the environment is shared; set it on the joint environment")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method of each copy; there is only ``action_masks()``."""
        if method_name != "action_masks" or not self._masked:
            raise AttributeError(f"the environment of agent {self.view.agent!r} has no method {method_name!r}")
        return list(self.view.action_masks()[self._rows(indices)])

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Whether each copy is wrapped: never, the episode statistics come from here."""
        return [False] * len(self._rows(indices))

    def _rows(self, indices: VecEnvIndices) -> Sequence[int]:
        chosen: Iterable[int] = self._get_indices(indices)
        return list(chosen)
