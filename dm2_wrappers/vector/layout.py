"""How a ParallelEnv's agents, spaces and actions map to the arrays of a vector environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import AECEnv

from dm2_wrappers.unwrap import layers
from dm2_wrappers.vector.base import MultiAgentVectorEnv
from dm2_wrappers.vector.spaces import action_mask, as_array, checked_mask, flat_space, flatten, form


def check_parallel_env(env: Any, what: str) -> None:
    """Check that ``env`` is a PettingZoo ``ParallelEnv`` that names its possible agents.

    Args:
        env: What the user gave.
        what: How to name it in the error, such as "DM2ParallelEnv wraps".

    Raises:
        TypeError: It is something else; the message says how to convert it.
        ValueError: It has no ``possible_agents``, their names are not unique strings, or SuperSuit's ``black_death`` hides
            which agents are gone.
    """
    convert = None
    if isinstance(env, AECEnv):
        convert = (
            "pettingzoo.utils.conversions.aec_to_parallel converts an environment whose agents all act once per cycle, and "
            "turn_based_aec_to_parallel a turn-based game (there give the waiting agents one available action, a no-op)"
        )
    elif isinstance(env, MultiAgentVectorEnv):
        convert = "a vector environment is already batched: use it as it is, or wrap it in DM2VectorEnv"
    elif isinstance(env, gymnasium.Env | gymnasium.vector.VectorEnv):
        convert = "dm2_wrappers.envs.from_gymnasium(env) makes one of a gymnasium.Env"
    elif any(base.__name__ == "MultiAgentEnv" for base in type(env).__mro__):
        convert = "write a ParallelEnv around RLlib's MultiAgentEnv"
    elif isinstance(env, type):
        convert = "this is a class: make an instance of it"
    elif not all(callable(getattr(env, name, None)) for name in ("reset", "step", "observation_space", "action_space")):
        convert = "pass an environment with reset, step, observation_space(agent) and action_space(agent)"
    if convert is not None:
        name = env.__name__ if isinstance(env, type) else type(env).__name__
        raise TypeError(f"{what} a PettingZoo ParallelEnv, got {name}; {convert}")
    if any(type(layer).__name__ == "black_death_par" for layer in layers(env)):
        raise ValueError(
            f"SuperSuit's black_death hides which agents are gone, so their zeros would count as observations: leave it "
            f"out of {type(env).__name__}, because agents may leave here, or put it around the DM2 wrapper"
        )
    agents = getattr(env, "possible_agents", None)
    if agents is None:
        raise ValueError(
            f"{what} a ParallelEnv with possible_agents, which fixes the agent axis, but {type(env).__name__} has none; "
            "set possible_agents to every agent that can ever take part"
        )
    wrong = [agent for agent in agents if not isinstance(agent, str)]
    if wrong:
        raise ValueError(
            f"agent names must be strings, because files and logs are named after them, but possible_agents of "
            f"{type(env).__name__} has {wrong[0]!r}; rename the agents in a wrapper, e.g. str(agent)"
        )
    if not agents or len(set(agents)) != len(agents):
        raise ValueError(
            f"possible_agents must hold one or more different names, but {type(env).__name__} has {list(agents)}"
        )


def environment_id(env: Any) -> str:
    """A stable name: the environment's ``env_id``, else its ``metadata["name"]``, else its class."""
    inner = getattr(env, "unwrapped", env)
    metadata = getattr(inner, "metadata", None)
    name = getattr(env, "env_id", None) or getattr(inner, "env_id", None)
    if not name and isinstance(metadata, Mapping):
        name = metadata.get("name")
    return str(name or type(inner).__name__)


class Layout:
    """The agents and spaces that all sub-environments have in common. It is small and picklable, so workers can send it.

    Args:
        env: One sub-environment.
        flatten_actions: Take any action spaces, and put all actions in flat float vectors unless all are ``Discrete``:
            for recording, where actions are kept but not chosen by a learner.

    Attributes:
        agents: The K agents, in array order.
        env_id: The environment's name.
        metadata: The environment's metadata, with the vector environment's ``"autoreset_mode"``.
        render_mode: The environment's.
        max_steps: Its attribute ``max_steps``, the time limit of an episode; None if it has none.
        native_observation_spaces: Each agent's own space, as the environment has it.
        native_action_spaces: The same for actions.
        observation_spaces: Each agent's flat ``Box``.
        action_spaces: Each agent's ``Discrete`` from 0 or flat ``Box``.
        discrete: Whether actions are integers.
        sizes: Each agent's number of features.

    Raises:
        TypeError: ``env`` is not a ParallelEnv.
        ValueError: A space that cannot be an array.
    """

    def __init__(self, env: Any, *, flatten_actions: bool = False) -> None:
        self.agents: tuple[str, ...] = tuple(env.possible_agents)
        self.env_id = environment_id(env)
        metadata = getattr(env, "metadata", None)
        self.metadata = {**(metadata if isinstance(metadata, Mapping) else {}), **MultiAgentVectorEnv.metadata}
        self.render_mode = getattr(env, "render_mode", None)
        self.max_steps = getattr(env, "max_steps", None)
        self.native_observation_spaces = {agent: env.observation_space(agent) for agent in self.agents}
        self.native_action_spaces = {agent: env.action_space(agent) for agent in self.agents}
        self.observation_spaces = {agent: flat_space(s) for agent, s in self.native_observation_spaces.items()}
        native = self.native_action_spaces.items()
        self.discrete = all(isinstance(space, spaces.Discrete) for _, space in native)
        if not self.discrete and not flatten_actions:
            _check_all_boxes(self.native_action_spaces)
        self.action_spaces: dict[str, spaces.Space[Any]] = {
            agent: spaces.Discrete(int(space.n)) if self.discrete else spaces.flatten_space(space) for agent, space in native
        }
        self.sizes = [space.shape[0] for space in self.observation_spaces.values()]
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
        # Learners compute in float32 and may overshoot a bound by a rounding error, which is clipped.
        low, high = self._low.astype(np.float64), self._high.astype(np.float64)
        scale = np.maximum(np.where(np.isfinite(low), np.abs(low), 0), np.where(np.isfinite(high), np.abs(high), 0))
        self._slack = 8 * np.finfo(np.float32).eps * scale

    def describe(self, venv: MultiAgentVectorEnv) -> None:
        """Set the attributes of a vector environment of such sub-environments."""
        venv.possible_agents, venv.env_id = self.agents, self.env_id
        venv.observation_spaces, venv.action_spaces = self.observation_spaces, self.action_spaces
        venv.metadata, venv.render_mode, venv.max_steps = self.metadata, self.render_mode, self.max_steps

    def same_as(self, other: Layout) -> bool:
        """Whether two environments' arrays are alike."""
        names = ("agents", "native_observation_spaces", "native_action_spaces")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def check_same(self, other: Layout, index: int) -> None:
        """Check that sub-environment ``index``, which has the layout ``other``, is like the first, which has this one.

        Raises:
            ValueError: Its agents or spaces differ.
        """
        if self.same_as(other):
            return
        if set(self.agents) == set(other.agents) and self.agents != other.agents:
            raise ValueError(
                f"make_env() must make identical copies, but the agents of sub-environment {index} are "
                f"{list(other.agents)} and those of sub-environment 0 are {list(self.agents)}; build possible_agents from a "
                "list or a sorted set, because each process orders sets differently"
            )
        raise ValueError(
            f"make_env() must make identical copies, but sub-environment {index} differs from sub-environment 0: "
            f"{self._difference(other)}"
        )

    def _difference(self, other: Layout) -> str:
        """The first difference between two layouts, in words."""
        if self.agents != other.agents:
            return f"agents {list(other.agents)} instead of {list(self.agents)}"
        for mine, theirs in (
            (self.native_observation_spaces, other.native_observation_spaces),
            (self.native_action_spaces, other.native_action_spaces),
        ):
            for agent in self.agents:
                if mine[agent] != theirs[agent]:
                    return f"agent {agent!r} has {theirs[agent]} instead of {mine[agent]}"
        return "none that can be named"

    def check_actions(self, actions: Any, num_envs: int, first_copy: int = 0) -> NDArray[Any]:
        """The actions as an array of the right type: integers [N, K] or floats [N, K, A], zeros in the padding.

        Box actions that exceed a bound by no more than a rounding error of float32 are clipped.

        Raises:
            ValueError: Another shape or type, a number out of range or not finite, naming agent and sub-environment.
        """
        given, actions = actions, as_array(actions)
        shape = (num_envs, len(self.agents)) if self.discrete else (num_envs, *self._low.shape)
        kinds, words = ("iu", "integers [N, K]") if self.discrete else ("iuf", "numbers [N, K, A]")
        if actions.shape != shape or actions.dtype.kind not in kinds:
            raise ValueError(f"actions must be {words} of shape {shape}, got {form(given)}")
        if self.discrete:
            bad = (actions < 0) | (actions >= np.array(self.action_sizes))
        else:
            actions, bad = self._clipped(actions)
        if bad.any():
            i, k = np.argwhere(bad)[0]
            allowed = self.action_spaces[self.agents[k]]
            advice = ""
            if not self.discrete and self.action_dtype.kind in "iu":
                advice = ", whose actions are integers: round the learner's in a wrapper"
            raise ValueError(
                f"agent {self.agents[k]!r} in sub-environment {first_copy + i} was given the action "
                f"{actions[i, k]}, but its action space is {allowed}{advice}"
            )
        return actions.astype(self.action_dtype)

    def _clipped(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Box actions with rounding errors clipped, and which agents' are out of range even so, [N, K]."""
        padding = np.arange(self._low.shape[1]) >= np.array(self.action_sizes)[:, None]
        actions = np.where(padding, 0, actions)
        bad = ~np.isfinite(actions) | (actions < self._low - self._slack) | (actions > self._high + self._slack)
        if self.action_dtype.kind in "iu":
            bad |= actions != np.round(actions)
        return np.where(bad, actions, np.clip(actions, self._low, self._high)), bad.any(axis=2)

    def joint_arrays(
        self, observations: Mapping[str, Any], infos: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """One environment's dicts as arrays: observations [1, K, D], 0 for absent agents, and action masks [1, K, A].

        Args:
            observations: ``{agent: observation}``.
            infos: ``{agent: info}``, which may hold action masks.

        Returns:
            The arrays; the masks of agents without one are all true, and continuous actions have None.

        Raises:
            ValueError: An unknown agent, an observation that is not in its space, or a wrong mask.
        """
        joint = np.zeros((1, len(self.agents), max(self.sizes)), np.float32)
        masks = None
        if self.discrete:
            counts = [int(space.n) for space in self.action_spaces.values()]  # type: ignore[attr-defined]
            masks = np.arange(max(counts)) < np.array(counts)[None, :, None]
        for agent, observation in observations.items():
            if agent not in self.agents:
                raise ValueError(f"observation of unknown agent {agent!r}; the agents are {list(self.agents)}")
            k = self.agents.index(agent)
            joint[0, k, : self.sizes[k]] = flatten(self.native_observation_spaces[agent], observation)
            mask = action_mask(observation, (infos or {}).get(agent) or {})
            if mask is not None and masks is not None:
                alive = ((infos or {}).get(agent) or {}).get("alive", True)
                masks[0, k, : counts[k]] = checked_mask(mask, counts[k], agent, bool(alive), "the observations have")
        return joint, masks

    def native_action(self, k: int, action: Any) -> Any:
        """Agent k's action as the environment itself takes it."""
        space = self.native_action_spaces[self.agents[k]]
        if self.discrete:
            return int(action + space.start)
        own = action[: self.action_sizes[k]]
        if isinstance(space, spaces.Box):
            return own.reshape(space.shape).astype(space.dtype)
        return spaces.unflatten(space, own.astype(self.action_spaces[self.agents[k]].dtype))

    def array_action(self, k: int, action: Any) -> NDArray[Any]:
        """Agent k's native action as a number counted from 0 or a flat vector: the inverse of `native_action`.

        Raises:
            ValueError: The action is not in the agent's space.
        """
        agent = self.agents[k]
        space: Any = self.native_action_spaces[agent]
        if isinstance(space, spaces.Discrete):
            value = as_array(action)
            inside = value.ndim == 0 and value.dtype.kind in "iu" and 0 <= int(value) - int(space.start) < int(space.n)
        elif isinstance(space, spaces.Box):
            value = as_array(action)
            inside = value.shape == space.shape and value.dtype.kind in "iuf"  # the range is checked with all others
        else:
            inside = bool(space.contains(action))
        if not inside:
            raise ValueError(f"the policy gave agent {agent!r} the action {action!r}, but its action space is {space}")
        if self.discrete:
            return np.asarray(int(value) - int(space.start))
        if isinstance(space, spaces.Box):
            return value.ravel()
        return np.asarray(spaces.flatten(space, action))

    def joint_action(self, actions: Mapping[str, Any], present: NDArray[np.bool_], who: str) -> NDArray[Any]:
        """The present agents' native actions, counted from 0 or flat and padded: integers [1, K] or floats [1, K, A].

        Args:
            actions: ``{agent: action}``.
            present: The agents that act, [K]; 0 stands for what the others do.
            who: Where the actions come from, for the error, such as "the policy gave".

        Raises:
            ValueError: A present agent has no action, or one that is not in its space.
        """
        joint = np.zeros((1, len(self.agents), *(() if self.discrete else (max(self.action_sizes),))), self.action_dtype)
        for k in map(int, np.flatnonzero(present)):
            agent = self.agents[k]
            if agent not in actions:
                raise ValueError(f"{who} no action for agent {agent!r}, only for {sorted(map(str, actions))}")
            action = self.array_action(k, actions[agent])
            joint[0, k, ...] = action if self.discrete else np.pad(action, (0, joint.shape[2] - len(action)))
        return joint


def _check_all_boxes(native: Mapping[str, spaces.Space[Any]]) -> None:
    for agent, space in native.items():
        if not isinstance(space, spaces.Discrete | spaces.Box):
            raise ValueError(
                f"actions in an array must be Discrete or Box, but agent {agent!r} has {space}; convert it "
                "in a wrapper first"
            )
    if any(isinstance(space, spaces.Discrete) for space in native.values()):
        raise ValueError(
            f"actions in one array must be all Discrete or all Box, but the agents' are {list(native.values())}; "
            "convert some in a wrapper first"
        )
