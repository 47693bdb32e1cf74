"""A tabular game as a PettingZoo environment, so that wrappers, demonstrations and learners of this library run on it."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from pettingzoo import ParallelEnv

from dm2_wrappers.tabular.game import Game

Dicts = tuple[dict[str, NDArray[np.float32]], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]


class TabularParallelEnv(ParallelEnv):
    """A :class:`Game` as an environment. Agents observe the one-hot state (float32 [S]) and have ``Discrete(A_i)`` actions.

    An episode ends after ``max_steps`` steps as a truncation, never as a termination. The discount factor is the
    learner's: the environment does not apply it.

    Args:
        game: The game.
        reward: float [S, A_1, ..., A_K], the team's reward for a joint action; 0 if not given.
        max_steps: Length of an episode.
        name: The environment's name, which ``Demonstrations`` store as ``env_id``.

    Raises:
        ValueError: ``reward`` has another shape, or ``max_steps`` is below 1.
    """

    def __init__(self, game: Game, reward: ArrayLike | None = None, *, max_steps: int = 50, name: str = "tabular") -> None:
        shape = game.transition.shape[:-1]
        self.reward = np.zeros(shape) if reward is None else np.array(reward, dtype=np.float64)
        if self.reward.shape != shape:
            raise ValueError(
                f"reward must have the shape {list(shape)}: states by every agent's actions, but it is "
                f"{list(self.reward.shape)}"
            )
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, but it is {max_steps}")
        self.game, self.max_steps = game, max_steps
        self.metadata = {"name": name, "render_modes": [], "is_parallelizable": True}
        self.render_mode = None
        self.possible_agents = [f"agent_{i}" for i in range(game.num_agents)]
        self.agents: list[str] = []
        self.observation_spaces = {
            agent: spaces.Box(0.0, 1.0, (game.num_states,), np.float32) for agent in self.possible_agents
        }
        self.action_spaces: dict[str, spaces.Discrete] = {
            agent: spaces.Discrete(number) for agent, number in zip(self.possible_agents, game.num_actions, strict=True)
        }
        self._rng = np.random.default_rng()
        self._state = self._steps = 0

    def observation_space(self, agent: str) -> spaces.Box:
        """The space of one agent's observations."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Discrete:
        """The space of one agent's actions."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, dict[str, Any]]]:
        """Draw a first state. Without a seed the random stream continues."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.agents = self.possible_agents.copy()
        self._state, self._steps = int(self._rng.choice(self.game.num_states, p=self.game.start)), 0
        return self._observe(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> Dicts:
        """Take one joint step.

        Raises:
            RuntimeError: The episode is over.
            ValueError: Not one action for each agent, or one that the agent does not have.
        """
        if not self.agents:
            raise RuntimeError("the episode is over: call reset() before step()")
        if set(actions) != set(self.agents):
            raise ValueError(f"expected one action for each of {self.agents}, got actions for {sorted(actions)}")
        for agent, action in actions.items():
            if not self.action_spaces[agent].contains(np.asarray(action)[()]):
                last = int(self.action_spaces[agent].n) - 1
                raise ValueError(f"{agent!r} has the actions 0 to {last}, but its action is {action!r}")
        now: tuple[int, ...] = (self._state, *(int(actions[agent]) for agent in self.possible_agents))
        paid = float(self.reward[now])
        self._state = int(self._rng.choice(self.game.num_states, p=self.game.transition[now]))
        self._steps += 1
        agents, over = self.agents, self._steps >= self.max_steps
        result: Dicts = (
            self._observe(),
            dict.fromkeys(agents, paid),
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, over),
            {agent: {} for agent in agents},
        )
        self.agents = [] if over else agents
        return result

    def state(self) -> NDArray[np.float32]:
        """The state, one-hot: float32 [S]."""
        row = np.zeros(self.game.num_states, np.float32)
        row[self._state] = 1
        return row

    def _observe(self) -> dict[str, NDArray[np.float32]]:
        return {agent: self.state() for agent in self.possible_agents}
