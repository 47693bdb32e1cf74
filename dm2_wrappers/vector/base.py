"""Batched multi-agent environments: the base class, which defines their contract, and a base for wrappers.

The contract is that of ``gymnasium.vector`` with an agent axis. With N sub-environments, K agents and D features:

``reset(seed=) -> (observations [N, K, D], infos)`` and
``step(actions [N, K] or [N, K, A]) -> (observations, rewards [N, K], terminations [N, K], truncations [N, K], infos)``.

A sub-environment whose episode ends resets itself in the same step (``AutoresetMode.SAME_STEP``). The observations are
then those of the next episode, and what followed the last action is in ``infos["final_obs"]``.

An agent that is absent (it died with ``death="remove"``, it has not joined yet, or it has left) has observation 0,
reward 0 and ``terminations`` true. So ``(terminations | truncations).all(axis=1)`` is true exactly where the joint
episode of a sub-environment ended with this step.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

Infos = dict[str, Any]
StepResult = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], Infos]


class MultiAgentVectorEnv(abc.ABC):
    """N sub-environments with K agents each, stepped together as arrays.

    ``infos`` of ``reset`` and ``step`` always has these entries, which belong to the returned observations:

    - ``"present"`` (bool [N, K]): the agents that act next, PettingZoo's ``agents``;
    - ``"alive"`` (bool [N, K]): the present agents that are alive;
    - ``"action_mask"`` (bool [N, K, A], discrete actions only): the available actions. All are available if the
      environment has no masks; an absent agent has only its action 0, or the environment's no-op.

    An environment may use its arrays again at the next step. Code that needs them after the next step copies them.

    ``infos`` of ``step`` also has these entries, which describe the state after the actions and before any reset:

    - ``"final_obs"`` (float32 [N, K, D]) and ``"final_alive"`` (bool [N, K]);
    - ``"_final_obs"`` (bool [N]): the sub-environments whose episode ended with this step, as in Gymnasium;
    - ``"broken"`` (bool [N]): the simulator failed and ended this episode as a truncation. Discard the episode;
    - ``"battle_won"`` (bool [N]) if the environment reports wins. It counts only in the step that ends an episode;
    - ``"_battle_won"`` (bool [N]): the sub-environments that report it, as in Gymnasium. Without this entry, all do.

    Environments with a global state have it in ``"state"`` (float32 [N, S]), and the state after the actions in
    ``"final_state"``. ``"final_action_mask"`` (bool [N, K, A]) has the actions that would be available if an episode that
    reached its time limit continued, if the environment knows them.

    Attributes:
        num_envs: N, the number of sub-environments.
        possible_agents: The K agents' names, in the order of the agent axis.
        observation_spaces: Each agent's own flat ``Box``, unpadded. The arrays are padded with 0 to the widest agent.
        action_spaces: Each agent's own action space; all ``Discrete`` or all flat ``Box``.
        env_id: The name of environment and scenario, which demonstrations store, e.g. "smax:5m_vs_6m".
        metadata: As in Gymnasium. ``"autoreset_mode"`` is always ``SAME_STEP``.
        render_mode: What ``render`` returns. None: the environment cannot be rendered.
        max_steps: The time limit of an episode in steps. None: it is unknown.
    """

    num_envs: int
    possible_agents: tuple[str, ...]
    observation_spaces: Mapping[str, spaces.Box]
    action_spaces: Mapping[str, spaces.Space[Any]]
    env_id: str
    metadata: Mapping[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}
    render_mode: str | None = None
    max_steps: int | None = None

    @property
    def num_agents(self) -> int:
        """K, the number of possible agents. PettingZoo's ``num_agents`` counts the agents that are present now."""
        return len(self.possible_agents)

    @property
    def max_num_agents(self) -> int:
        """K, as in PettingZoo."""
        return len(self.possible_agents)

    @property
    def observation_sizes(self) -> tuple[int, ...]:
        """Each agent's own number of features, unpadded."""
        return tuple(int(np.prod(self.observation_spaces[agent].shape)) for agent in self.possible_agents)

    @property
    def discrete(self) -> bool:
        """Whether actions are integers [N, K]; otherwise they are floats [N, K, A]."""
        return isinstance(self.action_spaces[self.possible_agents[0]], spaces.Discrete)

    @property
    def unwrapped(self) -> MultiAgentVectorEnv:
        """The innermost vector environment."""
        return self

    def observation_space(self, agent: str) -> spaces.Box:
        """The flat ``Box`` of one agent, unpadded."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """The action space of one agent."""
        return self.action_spaces[agent]

    @abc.abstractmethod
    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Start a new episode in every sub-environment; an integer seeds sub-environment i with ``seed + i``."""

    @abc.abstractmethod
    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take one joint step in every sub-environment."""

    def render(self) -> Any:
        """Draw sub-environment 0 according to its ``render_mode``."""
        raise NotImplementedError(f"{type(self).__name__} cannot be rendered")

    def close(self) -> None:  # noqa: B027 - many have nothing to release
        """Release the environment's resources; safe to call twice."""

    def __enter__(self) -> MultiAgentVectorEnv:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class MultiAgentVectorWrapper(MultiAgentVectorEnv):
    """Base class for wrappers around a vector environment. It forwards everything to ``env``; override what you change.

    A subclass that changes spaces must assign them in its ``__init__``: ``self.observation_spaces = {...}``.

    Args:
        env: The vector environment to wrap.

    Attributes:
        env: The vector environment one level below.

    Raises:
        TypeError: ``env`` is not a `MultiAgentVectorEnv`.
    """

    def __init__(self, env: MultiAgentVectorEnv) -> None:
        if not isinstance(env, MultiAgentVectorEnv):
            raise TypeError(
                f"{type(self).__name__} wraps a MultiAgentVectorEnv, for example vectorize(make_env, num_envs), "
                f"got {type(env).__name__}"
            )
        self.env = env
        self.metadata, self.render_mode, self.max_steps = env.metadata, env.render_mode, env.max_steps

    def __getattr__(self, name: str) -> Any:
        # Only called for what neither the instance nor its classes have: num_envs, spaces, layout, anything else.
        if name.startswith("_") or name == "env":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.env, name)

    @property
    def unwrapped(self) -> MultiAgentVectorEnv:
        """The innermost vector environment."""
        return self.env.unwrapped

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Start a new episode in every sub-environment."""
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take one joint step in every sub-environment."""
        return self.env.step(actions)

    def render(self) -> Any:
        """Draw sub-environment 0."""
        return self.env.render()

    def close(self) -> None:
        """Close the wrapped environment."""
        self.env.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self.env!r}>"


def joint_ends(terminations: NDArray[np.bool_], truncations: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The sub-environments whose joint episode ended with this step, bool [N]."""
    return np.asarray((terminations | truncations).all(axis=1))


def present_after(
    terminations: NDArray[np.bool_], truncations: NDArray[np.bool_], infos: Mapping[str, Any]
) -> NDArray[np.bool_]:
    """The agents that act next, bool [N, K], a new array: ``infos["present"]``.

    If the vector environment does not report it, all agents are present from the start of an episode.
    """
    if "present" in infos:
        return np.array(infos["present"], dtype=bool)
    ended = terminations | truncations
    return ~ended | ended.all(axis=1, keepdims=True)


def present_at_reset(infos: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The agents that act first, bool [N, K], a new array: ``infos["present"]``, or all if it is not reported."""
    return np.array(infos["present"], dtype=bool) if "present" in infos else np.ones_like(infos["alive"], dtype=bool)


def own_rewards(infos: Mapping[str, Any], rewards: NDArray[Any]) -> NDArray[Any]:
    """The environment's own rewards of a step, [N, K], before any wrapper shaped them.

    Args:
        infos: Those of the step. A wrapper that shapes rewards keeps the environment's in ``"env_reward"``. If such a
            wrapper is inside a DM2 wrapper, whose ``"env_reward"`` is the shaped one, they are in ``"own_reward"``.
        rewards: What the step paid.
    """
    found: NDArray[Any] = infos.get("own_reward", infos.get("env_reward", rewards))
    return found


def outcomes(infos: Mapping[str, Any]) -> NDArray[np.int8]:
    """How the sub-environments' episodes went: 1 won, 0 lost, -1 not reported; int8 [N], as in ``Demonstrations.won``.

    Args:
        infos: Those of a step. Their ``"battle_won"`` counts where ``"_battle_won"`` says so, without that everywhere.
    """
    if "battle_won" not in infos:
        return np.full(len(infos["alive"]), -1, dtype=np.int8)
    won = np.asarray(infos["battle_won"], dtype=bool)
    return np.where(infos.get("_battle_won", True), won, -1).astype(np.int8)


class EpisodeClock:
    """Counts the steps of N sub-environments' episodes."""

    def __init__(self) -> None:
        self._time: NDArray[np.int64] | None = None

    def restart(self) -> None:
        """New episodes begin in all sub-environments."""
        self._time = None

    def tick(self, ended: NDArray[np.bool_]) -> NDArray[np.int64]:
        """One joint step was taken: how many steps of its episode came before it, int64 [N]."""
        time = np.zeros(len(ended), np.int64) if self._time is None else self._time
        self._time = np.where(ended, 0, time + 1)
        return time
