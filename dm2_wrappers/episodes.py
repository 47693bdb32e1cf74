"""Playing whole episodes with a joint policy: the one loop that recording and evaluation share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.vector import Infos, MultiAgentVectorEnv
from dm2_wrappers.vector.base import joint_ends, outcomes, own_rewards, present_after, present_at_reset


class JointPolicy(Protocol):
    """All agents' policies as one function of a vector environment's arrays.

    A recurrent policy may also have a method ``start_episode(started)``. It is called with a bool [N] that marks the
    sub-environments in which an episode begins. A policy that fits only some environments may have a method
    ``check_env(env)``, which is called first and raises ``ValueError``.
    """

    def __call__(self, observations: NDArray[np.float32], infos: Infos) -> NDArray[Any]:
        """Return actions [N, K] (or [N, K, A]) for observations [N, K, D]."""


class Step(NamedTuple):
    """One joint step of one sub-environment."""

    observations: NDArray[np.float32]  # [K, D], before the action; 0 for agents that are not alive
    alive: NDArray[np.bool_]  # [K]
    actions: NDArray[Any]  # [K] or [K, A]; 0 for absent agents
    reward: float  # the team's


@dataclass
class Episode:
    """One whole episode.

    Attributes:
        team_return: The sum over steps of the mean environment reward of the agents that were present before the step.
        length: Joint steps.
        won: Whether it was won. None: not reported.
        steps: Its steps, if they were asked for.
    """

    team_return: float = 0.0
    length: int = 0
    won: bool | None = None
    steps: list[Step] = field(default_factory=list)


class Quota:
    """How many episodes each sub-environment still has to play.

    All play the same number: if the first episodes to finish were taken, short ones would be over-represented.

    Args:
        episodes: How many in total.
        num_envs: N.
    """

    def __init__(self, episodes: int, num_envs: int) -> None:
        self.episodes = episodes
        self.remaining = np.full(num_envs, episodes // num_envs)
        self.remaining[: episodes % num_envs] += 1
        self.broken = 0

    def keep(self, i: int, broken: bool) -> bool:
        """Whether to keep the episode that sub-environment ``i`` has just finished.

        Raises:
            RuntimeError: More episodes broke than are wanted, and more than ten.
        """
        if not broken:
            self.remaining[i] -= 1
            return True
        self.broken += 1
        if self.broken > max(self.episodes, 10):
            raise RuntimeError(
                f"the simulator keeps failing: {self.broken} episodes broke before {self.episodes} complete ones were played"
            )
        return False


def play(
    env: MultiAgentVectorEnv, policy: JointPolicy, episodes: int, seed: int | None = None, *, keep_steps: bool = False
) -> Iterator[Episode]:
    """Play complete episodes and yield each as it ends. Episodes in which the simulator failed are played again.

    Args:
        env: The environment, which is reset first.
        policy: Chooses the actions.
        episodes: How many, spread evenly over the sub-environments.
        seed: For the first reset; later episodes continue the environment's own random stream.
        keep_steps: Whether to keep every step.

    Raises:
        TypeError: ``policy`` is not a function of observations and infos.
        ValueError: The policy was made for other agents or spaces.
        RuntimeError: More episodes broke than were to be played, and more than ten.
    """
    expected = "a policy of a vector environment must be a function (observations [N, K, D], infos) -> actions"
    check_signature(policy, expected, "observations", "infos")
    if callable(check := getattr(policy, "check_env", None)):
        check(env)
    quota = Quota(episodes, env.num_envs)
    running = [Episode() for _ in range(env.num_envs)]
    observations, infos = env.reset(seed=seed)
    present = present_at_reset(infos)
    _start_episodes(policy, np.ones(env.num_envs, dtype=bool))
    while quota.remaining.any():
        alive = np.array(infos["alive"], dtype=bool) & present
        actions = policy(observations, infos)
        if isinstance(actions, Mapping):
            raise TypeError(
                "the policy of a vector environment must return actions as an array [N, K] or [N, K, A], but it returned a "
                "dict; a policy of dicts plays a ParallelEnv, in Demonstrations.record(env, policy, episodes)"
            )
        if keep_steps:
            seen = np.where(alive[..., None], observations, np.float32(0))
            # A copy, because the policy may use its array again.
            taken = np.array(actions, dtype=np.int64 if env.discrete else np.float32)
            if taken.shape[:2] == present.shape:  # step() refuses other shapes
                taken[~present] = 0  # absent agents did nothing, whatever the policy returned for them
        observations, rewards, terminations, truncations, infos = env.step(actions)
        team = team_rewards(own_rewards(infos, rewards), present)
        ended = joint_ends(terminations, truncations)
        present = present_after(terminations, truncations, infos)
        for i in map(int, np.flatnonzero(quota.remaining)):
            episode = running[i]
            episode.team_return += float(team[i])
            episode.length += 1
            if keep_steps:
                # Copies: a view would keep the arrays of all sub-environments alive.
                episode.steps.append(Step(seen[i].copy(), alive[i].copy(), taken[i].copy(), float(team[i])))
            if not ended[i]:
                continue
            running[i] = Episode()
            if quota.keep(i, broken="broken" in infos and bool(infos["broken"][i])):
                won = int(outcomes(infos)[i])
                episode.won = None if won < 0 else bool(won)
                yield episode
        if quota.remaining.any():
            _start_episodes(policy, ended)


def team_rewards(rewards: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[Any]:
    """The mean over the agents that were present to act, [N]; 0 where nobody was."""
    return np.mean(rewards, axis=1, where=present | ~present.any(axis=1, keepdims=True))


def check_signature(policy: Callable[..., Any], expected: str, *arguments: str, **keywords: str) -> None:
    """Check that a policy can be called with so many arguments.

    Raises:
        TypeError: It cannot; ``expected`` is the beginning of the message.
    """
    try:
        signature = inspect.signature(policy)
    except (TypeError, ValueError):  # built-in functions may have none
        return
    try:
        signature.bind(*arguments, **keywords)
    except TypeError:
        raise TypeError(f"{expected}, but this one takes {signature}") from None


def _start_episodes(policy: JointPolicy, started: NDArray[np.bool_]) -> None:
    if callable(hook := getattr(policy, "start_episode", None)) and started.any():
        hook(started)
