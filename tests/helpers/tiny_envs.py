"""Small PettingZoo environments whose every number can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class TinyEnv(ParallelEnv):
    """K agents, each with an observation of its own width: ``[t, own last action, random, random, ...]``.

    The team reward is the sum of the (live) agents' actions, plus 10 for a win. An episode lasts ``limit`` steps.

    Args:
        sizes: Each agent's number of features; its length is K.
        actions: Number of discrete actions, or the width of the continuous ones, for every agent (or one each).
        masks: Observations are ``{"observation", "action_mask"}``; in step t action ``1 + t % (n - 1)`` is illegal.
        continuous: Actions are ``Box(-1, 1)``.
        start: First number of the discrete action spaces.
        lifetimes: For each agent the step after which it dies (terminated, then gone); None: it does not die.
        absorb: The dead stay until the end instead, with zero observations and ``alive`` False in their infos.
        limit: Steps of an episode; with ``random_limit`` drawn from 1 to ``limit``.
        truncates: The limit is a truncation, else a termination.
        wins: Report ``battle_won`` in infos: every second episode is won, beginning with the first.
        broken: Numbers of the episodes (from 0) that end as broken.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (3, 2),
        actions: int | Sequence[int] = 3,
        *,
        masks: bool = False,
        continuous: bool = False,
        start: int = 0,
        lifetimes: Sequence[int | None] | None = None,
        absorb: bool = False,
        limit: int = 5,
        random_limit: bool = False,
        truncates: bool = True,
        wins: bool = False,
        broken: Sequence[int] = (),
    ) -> None:
        self.metadata = {"name": "tiny", "render_modes": ["rgb_array"]}
        self.render_mode = "rgb_array"
        self.possible_agents = [f"agent_{k}" for k in range(len(sizes))]
        self.agents: list[str] = []
        self.sizes = dict(zip(self.possible_agents, sizes, strict=True))
        numbers = [actions] * len(sizes) if isinstance(actions, int) else actions
        self.numbers = dict(zip(self.possible_agents, numbers, strict=True))
        self.lifetimes = dict(zip(self.possible_agents, lifetimes or [None] * len(sizes), strict=True))
        self.masks, self.continuous, self.start, self.absorb = masks, continuous, start, absorb
        self.max_limit, self.random_limit, self.truncates = limit, random_limit, truncates
        self.wins, self.broken = wins, broken
        self.rng = np.random.default_rng()
        self.episode = -1
        self.closed = 0
        self.observation_spaces = {agent: self._observation_space(agent) for agent in self.possible_agents}
        self.action_spaces = {agent: self._action_space(agent) for agent in self.possible_agents}

    def _observation_space(self, agent: str) -> spaces.Space:
        box = spaces.Box(-100, 100, (self.sizes[agent],), np.float32)
        if not self.masks:
            return box
        return spaces.Dict({"observation": box, "action_mask": spaces.MultiBinary(self.numbers[agent])})

    def _action_space(self, agent: str) -> spaces.Space:
        if self.continuous:
            return spaces.Box(-1, 1, (self.numbers[agent],), np.float32)
        return spaces.Discrete(self.numbers[agent], start=self.start)

    def observation_space(self, agent: str) -> spaces.Space:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.t = 0
        self.episode += 1
        self.limit = int(self.rng.integers(1, self.max_limit + 1)) if self.random_limit else self.max_limit
        self.agents = list(self.possible_agents)
        self.dead: set[str] = set()
        self.last = dict.fromkeys(self.agents, 0.0)
        return {agent: self._observe(agent) for agent in self.agents}, {agent: self._info(agent) for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        agents = list(self.agents)
        self.last = {agent: float(np.sum(actions[agent])) for agent in agents}
        self.t += 1
        end = self.t >= self.limit
        reward = sum(self.last[agent] for agent in agents if agent not in self.dead)
        reward += 10.0 if end and self._won() else 0.0
        died = {agent for agent in agents if self.lifetimes[agent] is not None and self.t >= self.lifetimes[agent]}
        if self.absorb:
            self.dead = died
        terminations = {agent: (end and not self.truncates) or (agent in died and not self.absorb) for agent in agents}
        truncations = {agent: end and self.truncates and not terminations[agent] for agent in agents}
        self.agents = [agent for agent in agents if not (terminations[agent] or truncations[agent])]
        observations = {agent: self._observe(agent) for agent in agents}
        infos = {agent: self._info(agent) for agent in agents}
        if not self.agents:
            for info in infos.values():
                info.update({"battle_won": self._won()} if self.wins else {})
                info.update({"broken": True} if self.episode in self.broken else {})
        return observations, dict.fromkeys(agents, reward), terminations, truncations, infos

    def render(self) -> np.ndarray:
        return np.full((2, 2, 3), self.t, np.uint8)

    def close(self) -> None:
        self.closed += 1

    def _won(self) -> bool:
        return self.wins and self.episode % 2 == 0

    def _observe(self, agent: str) -> Any:
        size = self.sizes[agent]
        features = np.array([self.t, self.last[agent], *self.rng.random(max(size - 2, 0))], np.float32)[:size]
        if agent in self.dead:
            features = np.zeros(size, np.float32)
        if not self.masks:
            return features
        mask = np.ones(self.numbers[agent], np.int8)
        mask[1 + self.t % (len(mask) - 1)] = 0
        return {"observation": features, "action_mask": mask}

    def _info(self, agent: str) -> dict:
        return {"alive": agent not in self.dead} if self.absorb else {}


class StateEnv(TinyEnv):
    """A TinyEnv with a global state: ``[episode, t]``."""

    state_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def state(self) -> np.ndarray:
        return np.array([self.episode, self.t], np.float32)


class FailingEnv(TinyEnv):
    """A TinyEnv that raises in its ``fail_at``-th step (counted over episodes)."""

    def __init__(self, fail_at: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps_left = fail_at

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        self.steps_left -= 1
        if self.steps_left <= 0:
            raise ZeroDivisionError("the simulator fell over")
        return super().step(actions)


class HalfWonEnv(TinyEnv):
    """A TinyEnv for the examples: masks, deaths that absorb, and chance decides whether an episode is won."""

    def __init__(self) -> None:
        super().__init__(sizes=(4, 3), masks=True, lifetimes=[3, None], absorb=True, limit=6, wins=True)

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        first = super().reset(seed, options)
        self.won = bool(self.rng.random() < 0.5)
        return first

    def _won(self) -> bool:
        return self.won


class ShapedEnv(TinyEnv):
    """A TinyEnv as a wrapper that shapes rewards shows it: 10 for every step, and the environment's own, 1, in infos."""

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        observations, rewards, terminations, truncations, infos = super().step(actions)
        infos = {agent: {**info, "env_reward": 1.0} for agent, info in infos.items()}
        return observations, dict.fromkeys(rewards, 10.0), terminations, truncations, infos


class ToldEnv(TinyEnv):
    """A TinyEnv that says how its episodes went: ``told[number % len(told)]``, nothing where that is "nothing".

    The first episode's number is the seed, the next one's is one more.
    """

    def __init__(self, told: Sequence[bool | str | None] = (True, None, False, "nothing"), **options: Any) -> None:
        super().__init__(**options)
        self.told, self.number = told, -1

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.number = self.number + 1 if seed is None else seed
        return super().reset(seed, options)

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        results = super().step(actions)
        outcome = self.told[self.number % len(self.told)]
        if not self.agents and outcome != "nothing":
            for info in results[4].values():
                info["battle_won"] = outcome
        return results
