"""Record demonstrations: play whole episodes and keep what each agent saw before each action."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dm2_wrappers._extras import require
from dm2_wrappers.demonstration_files import to_json
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.flatten import environment_id, flat_space, flatten, without_matcher
from dm2_wrappers.random_state import RandomState, derive_seed
from dm2_wrappers.vector import MultiAgentVectorEnv


class _Row(NamedTuple):
    """One joint step."""

    observations: NDArray[np.float32]  # [K, D], before the action; 0 for the dead
    alive: NDArray[np.bool_]  # [K]
    actions: NDArray[Any]  # [K] or [K, A]
    reward: float  # the team's


class _Episode(NamedTuple):
    rows: list[_Row]
    won: int  # 1, 0 or -1: not reported


class Quota:
    """How many episodes each copy still owes: the same number each, or the short episodes would be over-represented."""

    def __init__(self, episodes: int, copies: int) -> None:
        self.episodes = episodes
        self.owed = np.full(copies, episodes // copies)
        self.owed[: episodes % copies] += 1
        self.broken = 0

    def keep(self, copy: int, broken: bool) -> bool:
        """Whether to keep the episode that ``copy`` has just finished."""
        if not broken:
            self.owed[copy] -= 1
            return True
        self.broken += 1
        if self.broken > max(self.episodes, 10):
            raise RuntimeError(
                f"{self.broken} episodes broke before {self.episodes} whole ones were played; the simulator keeps failing"
            )
        return False


def record(
    env: Any,
    policy: Callable[..., Any],
    episodes: int,
    *,
    seed: int | None,
    provenance: Mapping[str, Any] | None,
    progress_bar: bool,
) -> Demonstrations:
    """See :meth:`Demonstrations.record`."""
    if episodes < 1:
        raise ValueError(f"record() needs at least 1 episode, but episodes is {episodes}")
    env = without_matcher(env)
    agents = tuple(env.possible_agents)
    sizes = tuple(flat_space(env.observation_space(agent)).shape[0] for agent in agents)
    seed = None if seed is None else int(seed)
    metadata = {"env_id": environment_id(env), "style": "concurrent", "policy": dict(provenance or {}), "seed": seed}
    to_json(metadata)  # fail now rather than after a thousand episodes

    play = _play_copies if isinstance(env, MultiAgentVectorEnv) else _play_parallel
    stream: Iterable[_Episode] = play(env, policy, episodes, seed)
    if progress_bar:
        stream = require("tqdm", "sb3").tqdm(stream, total=episodes, desc="recording", unit="episode")
    outer = RandomState.capture()
    if seed is not None:  # policies sample from the global streams: seeded, and then left as they were
        RandomState.seeded(derive_seed(seed, "recording")).restore()
    try:
        kept = list(stream)
    finally:
        if seed is not None:
            outer.restore()
    if isinstance(env, MultiAgentVectorEnv):
        # Copies finish short episodes first: in random order, the first n are no more likely to be short ones.
        kept = [kept[i] for i in np.random.default_rng(seed).permutation(len(kept))]

    observations, alive, actions, reward = zip(*(row for episode in kept for row in episode.rows), strict=True)
    offsets = np.cumsum([0] + [len(episode.rows) for episode in kept], dtype=np.int64)
    won = np.array([episode.won for episode in kept], dtype=np.int8)
    return Demonstrations(
        agents=agents,
        sizes=sizes,
        padded_observations=np.stack(observations),
        alive=np.stack(alive),
        actions=np.stack(actions),
        rewards=np.repeat(np.array(reward, dtype=np.float32)[:, None], len(agents), axis=1),
        offsets=np.repeat(offsets[None], len(agents), axis=0),
        won=np.repeat(won[None], len(agents), axis=0),
        metadata=metadata,
    )


def _play_parallel(env: Any, policy: Callable[..., Any], episodes: int, seed: int | None) -> Iterator[_Episode]:
    """Episodes of a ParallelEnv, one after the other."""
    agents = env.possible_agents
    observation_spaces = {agent: env.observation_space(agent) for agent in agents}
    action_spaces = {agent: env.action_space(agent) for agent in agents}
    width = max(flat_space(space).shape[0] for space in observation_spaces.values())
    discrete = all(isinstance(space, spaces.Discrete) for space in action_spaces.values())
    no_actions = np.zeros(len(agents), np.int64)
    if not discrete:
        no_actions = np.zeros((len(agents), max(spaces.flatdim(space) for space in action_spaces.values())), np.float32)

    quota = Quota(episodes, copies=1)
    while quota.owed[0]:
        observations, infos = env.reset(seed=seed)
        seed = None  # later episodes continue the environment's own random stream
        _start_episode(policy, np.ones(1, dtype=bool))
        rows = []
        while env.agents:
            present = {agent: observations[agent] for agent in env.agents}
            actions = policy(present)
            seen = np.zeros((len(agents), width), np.float32)
            alive = np.zeros(len(agents), dtype=bool)
            taken = no_actions.copy()
            for k, agent in enumerate(agents):
                if agent not in present:
                    continue
                _check_action(agent, action_spaces[agent], actions)
                if discrete:  # counted from 0, as in a vector environment
                    taken[k] = int(actions[agent]) - action_spaces[agent].start
                else:
                    action = np.asarray(spaces.flatten(action_spaces[agent], actions[agent]))
                    taken[k, : len(action)] = action
                alive[k] = infos.get(agent, {}).get("alive", True)
                if alive[k]:
                    features = flatten(observation_spaces[agent], present[agent])
                    seen[k, : len(features)] = features
            observations, rewards, _, _, infos = env.step(actions)
            unshaped = [info["env_reward"] for info in infos.values() if "env_reward" in info]
            rows.append(_Row(seen, alive, taken, float(np.mean(unshaped or list(rewards.values())))))
        if quota.keep(0, broken=any(info.get("broken", False) for info in infos.values())):
            won = [bool(info["battle_won"]) for info in infos.values() if "battle_won" in info]
            yield _Episode(rows, int(any(won)) if won else -1)


def _check_action(agent: str, space: spaces.Space[Any], actions: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if the policy left the agent out or its action is not in its own space."""
    if agent not in actions:
        raise ValueError(f"the policy gave no action for agent {agent!r}, only for {sorted(actions)}")
    action, legal = actions[agent], False
    if isinstance(space, spaces.Discrete):
        number = np.asarray(action)
        legal = number.ndim == 0 and number.dtype.kind in "iu" and 0 <= int(number) - int(space.start) < int(space.n)
    elif isinstance(space, spaces.Box):
        numbers = np.asarray(action)
        if numbers.shape == space.shape and numbers.dtype.kind in "iuf":
            numbers = numbers.astype(space.dtype)  # policies often compute in another precision
            legal = bool(np.all((numbers >= space.low) & (numbers <= space.high)))
    else:
        legal = space.contains(action)
    if not legal:
        raise ValueError(f"the policy gave agent {agent!r} the action {action!r}, but its action space is {space}")


def _play_copies(
    env: MultiAgentVectorEnv, policy: Callable[..., Any], episodes: int, seed: int | None
) -> Iterator[_Episode]:
    """Episodes of a vector environment, as its copies finish them."""
    quota = Quota(episodes, env.num_envs)
    trails: list[list[_Row]] = [[] for _ in range(env.num_envs)]
    present = np.ones((env.num_envs, env.num_agents), dtype=bool)
    observations, infos = env.reset(seed=seed)
    _start_episode(policy, np.ones(env.num_envs, dtype=bool))
    while quota.owed.any():
        alive = np.array(infos["alive"], dtype=bool)
        seen = np.where(alive[..., None], observations, np.float32(0))
        actions = policy(observations, infos)
        taken = np.array(actions)  # a copy, as the policy may use its array again
        taken = taken.astype(np.int64 if env.discrete else np.float32)
        observations, rewards, terminations, truncations, infos = env.step(actions)
        # The team's reward is the mean over the agents that were there to act: others have 0 in the array.
        reward = np.mean(infos.get("env_reward", rewards), axis=1, where=present)
        ended = terminations | truncations
        done = np.all(ended, axis=1)
        present = ~ended | done[:, None]
        for i in map(int, np.flatnonzero(quota.owed)):
            trails[i].append(_Row(seen[i], alive[i], taken[i], float(reward[i])))
            if not done[i]:
                continue
            if quota.keep(i, broken="broken" in infos and bool(infos["broken"][i])):
                yield _Episode(trails[i], int(infos["battle_won"][i]) if "battle_won" in infos else -1)
            trails[i] = []
        _start_episode(policy, done)


def _start_episode(policy: Callable[..., Any], mask: NDArray[np.bool_]) -> None:
    if callable(hook := getattr(policy, "start_episode", None)) and mask.any():
        hook(mask)
