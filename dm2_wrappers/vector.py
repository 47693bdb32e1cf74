"""Batched multi-agent environments: the contract that every vector environment here keeps.

It is ``gymnasium.vector``'s contract with an agent axis. With N copies, K agents and D features:

``reset(seed=) -> (observations [N, K, D], infos)`` and
``step(actions [N, K] or [N, K, A]) -> (observations, rewards [N, K], terminations [N, K], truncations [N, K], infos)``.

A copy whose episode ends resets itself in the same step: the observations are then the next episode's, and what
followed the last action is in ``infos["final_obs"]``. An agent that has left an episode (died, with
``death="remove"``) keeps ``terminations`` true, observation 0 and reward 0 until the others are done too, so that
``(terminations | truncations).all(axis=1)`` is exactly "this copy's joint episode ended with this step".
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Infos = dict[str, Any]
StepResult = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], Infos]


class MultiAgentVectorEnv(abc.ABC):
    """N copies of a K-agent environment, stepped together as arrays.

    ``infos`` of ``reset`` and ``step`` always holds ``"alive"`` (bool [N, K], at the observation returned with it)
    and, where actions are discrete, ``"action_mask"`` (bool [N, K, A]; all legal where the environment has no masks;
    an absent agent has just its action 0, or the environment's do-nothing). ``infos`` of ``step`` also holds
    ``"final_obs"`` (float32 [N, K, D]: what followed the action, before any reset), ``"final_alive"`` (bool [N, K], at
    that), ``"broken"`` (bool [N]: the simulator failed and ended this copy's episode as a truncation; forget it) and,
    where the environment reports wins, ``"battle_won"`` (bool [N], meaningful in the step that ends an episode).
    Environments with a global state put it under ``"state"`` (float32 [N, S]), and the one that followed the action under
    ``"final_state"``. Those that know what would be legal if an episode cut by its time limit went on say so in
    ``"final_action_mask"`` (bool [N, K, A]).

    Attributes:
        num_envs: N, the number of copies.
        possible_agents: The K agents' names, in the order of the agent axis.
        observation_spaces: Each agent's own flat ``Box``, unpadded; the arrays are padded to the widest with 0.
        action_spaces: Each agent's own action space; all ``Discrete`` or all flat ``Box``.
        env_id: A stable name of environment and scenario, kept in demonstrations as provenance, e.g. "smax:5m_vs_6m".
    """

    num_envs: int
    possible_agents: tuple[str, ...]
    observation_spaces: Mapping[str, spaces.Box]
    action_spaces: Mapping[str, spaces.Space[Any]]
    env_id: str

    @property
    def num_agents(self) -> int:
        """K, the number of agents."""
        return len(self.possible_agents)

    @property
    def observation_sizes(self) -> tuple[int, ...]:
        """Each agent's own number of features, unpadded."""
        return tuple(int(np.prod(self.observation_spaces[agent].shape)) for agent in self.possible_agents)

    @property
    def discrete(self) -> bool:
        """Whether actions are integers [N, K] (else floats [N, K, A])."""
        return isinstance(self.action_spaces[self.possible_agents[0]], spaces.Discrete)

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
        """Start a new episode in every copy; an integer seeds copy i with ``seed + i``."""

    @abc.abstractmethod
    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take one joint step in every copy."""

    def close(self) -> None:  # noqa: B027 - many have nothing to release
        """Release whatever the environment holds; safe to call twice."""

    def __enter__(self) -> MultiAgentVectorEnv:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def vectorize(make_env: Callable[[], Any], num_envs: int, *, workers: int = 0) -> MultiAgentVectorEnv:
    """Batch any PettingZoo ``ParallelEnv``.

    Observations are flattened (``Box``, ``Discrete``, ...; of PettingZoo's ``{"observation", "action_mask"}`` the mask
    goes to ``infos["action_mask"]``), ``Discrete`` actions count from 0, and what an absent agent "does" is ignored.
    Copy i plays exactly what a single environment with its seed plays, in one process or in several.

    Args:
        make_env: Makes one copy; called ``num_envs`` times.
        num_envs: N.
        workers: Spread the copies over so many processes; 0 steps them in this one. ``make_env`` then travels by
            cloudpickle, and a program must start under ``if __name__ == "__main__":``.

    Raises:
        TypeError: ``make_env`` is not a function, or does not make a ParallelEnv.
        ValueError: Fewer copies than 1, or an environment that cannot be batched (the message says why).
        RuntimeError: A worker failed; the message holds its traceback.
    """
    if not callable(make_env):
        raise TypeError(
            f"vectorize() makes its copies itself: pass a function that makes one, e.g. lambda: make(), "
            f"but {type(make_env).__name__} came"
        )
    if num_envs < 1 or workers < 0:
        raise ValueError(f"vectorize() needs num_envs >= 1 and workers >= 0, but got {num_envs} and {workers}")
    if workers:
        from dm2_wrappers.vector_processes import ProcessVectorEnv

        return ProcessVectorEnv(make_env, num_envs, workers)
    from dm2_wrappers.vector_sync import SyncVectorEnv

    return SyncVectorEnv(make_env, num_envs)
