"""How a ParallelEnv's agents, spaces and actions map to the arrays of a vector environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import AECEnv

from dm2_wrappers.flatten import environment_id, flat_space


class Layout:
    """What all copies of an environment have in common; small and picklable, so workers can send it.

    Attributes:
        agents: The K agents, in array order.
        env_id: The environment's name.
        native_observation_spaces: Each agent's own space, as the environment has it.
        native_action_spaces: The same for actions.
        observation_spaces: Each agent's flat ``Box``.
        action_spaces: Each agent's ``Discrete`` from 0 or flat ``Box``.
        discrete: Whether actions are integers.
        state_size: Length of the flat global state; None where the environment has none.

    Raises:
        TypeError: ``env`` is not a ParallelEnv.
        ValueError: It owns a matcher, or a space that cannot be an array.
    """

    def __init__(self, env: Any) -> None:
        if isinstance(env, AECEnv) or not hasattr(env, "possible_agents"):
            raise TypeError(
                f"make_env() must return a PettingZoo ParallelEnv, but it returned {type(env).__name__}; "
                f"pettingzoo.utils.conversions.aec_to_parallel converts turn-based ones"
            )
        if hasattr(env, "matcher"):
            raise ValueError(
                "each copy of this environment would train discriminators of its own on a slice of the data; "
                "vectorize the unwrapped environment and wrap the result: DM2VectorEnv(vectorize(...), matcher, ...)"
            )
        self.agents: tuple[str, ...] = tuple(env.possible_agents)
        self.env_id = environment_id(env)
        self.native_observation_spaces = {agent: env.observation_space(agent) for agent in self.agents}
        self.native_action_spaces = {agent: env.action_space(agent) for agent in self.agents}
        self.observation_spaces = {agent: flat_space(s) for agent, s in self.native_observation_spaces.items()}
        self.action_spaces = {agent: _array_action_space(agent, s) for agent, s in self.native_action_spaces.items()}
        kinds = {type(space) for space in self.action_spaces.values()}
        if len(kinds) != 1:
            raise ValueError(
                "actions in one array must be all Discrete or all Box, but the agents' are "
                f"{list(self.native_action_spaces.values())}; convert some in a wrapper first"
            )
        self.discrete = kinds == {spaces.Discrete}
        self.sizes = [space.shape[0] for space in self.observation_spaces.values()]
        state_space = getattr(env, "state_space", None)
        self.state_size = spaces.flatdim(state_space) if isinstance(state_space, spaces.Box) else None
        self._prepare_actions()

    def _prepare_actions(self) -> None:
        """Bounds of every agent's actions as padded arrays, to check all actions in one go."""
        own: list[Any] = list(self.action_spaces.values())
        if self.discrete:
            self.action_sizes = [int(space.n) for space in own]
            self.action_dtype = np.dtype(np.int64)
            return
        self.action_sizes = [space.shape[0] for space in own]
        self.action_dtype = np.result_type(*(space.dtype for space in own))
        shape = (len(own), max(self.action_sizes))
        self._low, self._high = np.zeros(shape, self.action_dtype), np.zeros(shape, self.action_dtype)
        for k, space in enumerate(own):
            self._low[k, : self.action_sizes[k]] = space.low
            self._high[k, : self.action_sizes[k]] = space.high

    def same_as(self, other: Layout) -> bool:
        """Whether two environments' arrays are alike."""
        names = ("agents", "native_observation_spaces", "native_action_spaces", "state_size")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def check_actions(self, actions: Any, num_envs: int, first_copy: int = 0) -> NDArray[Any]:
        """The actions as an array of the right type: integers [N, K] or floats [N, K, A], zeros in the padding.

        Raises:
            ValueError: Another shape or type, a number out of range or not finite, naming agent and copy.
        """
        actions = np.asarray(actions)
        shape = (num_envs, len(self.agents)) if self.discrete else (num_envs, *self._low.shape)
        kinds, words = ("iu", "integers [N, K]") if self.discrete else ("iuf", "numbers [N, K, A]")
        if actions.shape != shape or actions.dtype.kind not in kinds:
            raise ValueError(
                f"actions must be {words} of the shape {shape}, but came as {actions.dtype} of shape {actions.shape}"
            )
        if self.discrete:
            bad = (actions < 0) | (actions >= np.array(self.action_sizes))
        else:
            padding = np.arange(self._low.shape[1]) >= np.array(self.action_sizes)[:, None]
            actions = np.where(padding, 0, actions).astype(self.action_dtype)
            bad = (~np.isfinite(actions) | (actions < self._low) | (actions > self._high)).any(axis=2)
        if bad.any():
            copy, k = np.argwhere(bad)[0]
            allowed = self.action_spaces[self.agents[k]]
            raise ValueError(
                f"agent {self.agents[k]!r} in copy {first_copy + copy} was given the action {actions[copy, k]}, "
                f"but its action space is {allowed}"
            )
        return actions.astype(self.action_dtype)

    def native_action(self, k: int, action: Any) -> Any:
        """Agent k's action as the environment itself takes it."""
        space = self.native_action_spaces[self.agents[k]]
        if self.discrete:
            return int(action + space.start)
        return action[: self.action_sizes[k]].reshape(space.shape).astype(space.dtype)


def _array_action_space(agent: str, space: spaces.Space[Any]) -> spaces.Space[Any]:
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.Box):
        return spaces.flatten_space(space)
    raise ValueError(
        f"actions in an array must be Discrete or Box, but agent {agent!r} has {space}; convert it in a wrapper first"
    )
