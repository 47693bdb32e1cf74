"""The team that an RLlib algorithm has trained, as a joint policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.columns import Columns
from ray.rllib.utils.spaces.space_utils import clip_action, unsquash_action

from dm2_wrappers.vector import Infos


class TeamPolicy:
    """All agents' present policies: for `dm2.evaluate`, for recording demonstrations, or to act with.

    It takes a copy of the weights when it is made.

    Args:
        algorithm: A DM2PPO, or RLlib's PPO with one policy per agent or shared ones.
        deterministic: Choose the most likely action instead of a sampled one.

    Example:
        >>> dm2.evaluate(dm2.rllib.TeamPolicy(algorithm), dm2.envs.smax.vector_env("5m_vs_6m", 32), episodes=32, seed=0)
    """

    def __init__(self, algorithm: Algorithm, *, deterministic: bool = False) -> None:
        self.deterministic = deterministic
        config = algorithm.config
        self._agents = tuple(config.agent_spaces)
        self._modules = config.get_multi_rl_module_spec(spaces=algorithm.spaces).build()
        self._modules.set_state(algorithm.learner_group.get_weights())
        self._module_of = {agent: self._modules[config.policy_mapping_fn(agent, None)] for agent in self._agents}
        self._first = config.first_actions
        self._normalized, self._clipped = config.normalize_actions, config.clip_actions

    def __call__(self, observations: NDArray[np.float32], infos: Infos) -> NDArray[Any]:
        """Actions [N, K] (or [N, K, A]) for a vector environment's observations [N, K, D] and infos."""
        columns = []
        for k, agent in enumerate(self._agents):
            module = self._module_of[agent]
            shape, masks = _parts(module.observation_space)
            rows = observations[:, k, : math.prod(shape)].reshape(len(observations), *shape)
            mask = infos["action_mask"][:, k, : int(module.action_space.n)] if masks else None
            columns.append(self._act(module, rows, mask))
        return np.stack(columns, axis=1)

    def predict(self, observations: Mapping[str, Any]) -> dict[str, Any]:
        """Actions of the agents whose observations are given, as a ``ParallelEnv`` returns them."""
        actions = {}
        for agent, observation in observations.items():
            mask = None
            if isinstance(observation, Mapping):
                observation, mask = observation["observation"], np.asarray(observation["action_mask"])[None]
            [action] = self._act(self._module_of[agent], np.asarray(observation)[None], mask)
            actions[agent] = action + self._first.get(agent, 0)
        return actions

    @torch.no_grad()
    def _act(self, module: Any, observations: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[Any]:
        """One agent's actions for a batch of its observations."""
        batch: Any = torch.as_tensor(np.array(observations, np.float32))
        if mask is not None:
            batch = {"observation": batch, "action_mask": torch.as_tensor(np.array(mask, np.float32))}
        logits = module.forward_inference({Columns.OBS: batch})[Columns.ACTION_DIST_INPUTS]
        distribution = module.get_inference_action_dist_cls().from_logits(logits)
        if self.deterministic:
            distribution = distribution.to_deterministic()
        actions = distribution.sample().numpy()
        if isinstance(module.action_space, spaces.Box):
            if self._normalized:
                return unsquash_action(actions, module.action_space)
            return clip_action(actions, module.action_space) if self._clipped else actions
        return actions


def _parts(space: spaces.Space) -> tuple[tuple[int, ...], bool]:
    """The shape of the observation itself, and whether action masks come with it."""
    if isinstance(space, spaces.Dict):
        return tuple(space["observation"].shape or ()), True
    return tuple(space.shape or ()), False
