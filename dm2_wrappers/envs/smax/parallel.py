"""SMAX as a PettingZoo ``ParallelEnv``: a vector environment with one battle, seen through dicts."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from dm2_wrappers import _checks
from dm2_wrappers.envs.options import checked_render_mode
from dm2_wrappers.envs.smax.render import BattleWindow, draw
from dm2_wrappers.envs.smax.vectorized import SMAXVectorEnv
from dm2_wrappers.vector.reset_arguments import reset_options

Dicts = tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]


class SMAXParallelEnv(ParallelEnv):
    """One SMAX battle with observations ``{"observation": float32 [D], "action_mask": int8 [A]}``.

    ``infos[agent]`` has ``"alive"`` (at the observation returned with it), ``"battle_won"`` and ``"broken"``. Made by
    `dm2_wrappers.envs.smax.parallel_env`, which has the options.
    """

    def __init__(self, vector: SMAXVectorEnv, *, render_mode: str | None = None) -> None:
        self._vector = vector
        self.env_id = vector.env_id
        self.metadata = {"name": vector.env_id, "render_modes": ["rgb_array", "human"], "is_parallelizable": True}
        self.render_mode = checked_render_mode(render_mode)
        self.possible_agents = list(vector.possible_agents)
        self.agents: list[str] = []
        self.max_steps = vector.max_steps
        self.observation_spaces = {
            agent: spaces.Dict(
                {
                    "observation": vector.observation_spaces[agent],
                    "action_mask": spaces.Box(0, 1, (int(vector.action_spaces[agent].n),), np.int8),  # type: ignore[attr-defined]
                }
            )
            for agent in self.possible_agents
        }
        self.action_spaces = dict(vector.action_spaces)
        self._next_episode: tuple[NDArray[np.float32], dict[str, Any]] | None = None
        self._last_units: dict[str, NDArray[Any]] = {}
        self._world_state: NDArray[np.float32] | None = None
        self._window: Any = None

    def observation_space(self, agent: str) -> spaces.Dict:
        """The space of one agent's observation and action mask."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """The space of one agent's actions: four moves, stop, and one attack per enemy."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start a new battle; without a seed the stream of the last one goes on. No options are used."""
        seed, _ = _checks.integer("seed", seed, none=True), reset_options(options)
        if seed is None and self._next_episode is not None:
            observations, infos = self._next_episode  # the vector environment has already begun it
        else:
            observations, infos = self._vector.reset(seed=seed)
        self._next_episode = None
        self.agents = self.possible_agents.copy()
        self._world_state = infos["state"][0]
        self._last_units = self._vector.units() if self.render_mode else {}
        if self.render_mode == "human":
            self.render()
        return self._observe(observations, infos["action_mask"]), {
            agent: {"alive": bool(infos["alive"][0, k]), "battle_won": False, "broken": False}
            for k, agent in enumerate(self.possible_agents)
        }

    def step(self, actions: dict[str, int]) -> Dicts:
        """Take one joint step; ``actions`` has one available action for each of ``agents``."""
        if not self.agents:
            raise RuntimeError("the episode is over: call reset() before step()")
        if set(actions) != set(self.agents):
            raise ValueError(f"expected one action for each of {self.agents}, got actions for {sorted(actions)}")
        present = [agent in self.agents for agent in self.possible_agents]
        stop = self._vector.no_op
        joint = np.array([[actions.get(agent, stop) for agent in self.possible_agents]])
        observations, rewards, terminations, truncations, infos = self._vector.step(joint)
        over = bool((terminations | truncations).all())
        if over:
            # The arrays already show the next battle; this one's last observation is kept apart.
            self._next_episode = observations, infos
            observations = infos["final_obs"]
        self._world_state = infos["final_state"][0]
        alive = infos["final_alive"][0]
        masks = self._vector.idle_mask[None] if over else infos["action_mask"]
        observed = self._observe(observations, masks)
        if self.render_mode and not over:
            self._last_units = self._vector.units()
        shown = [(k, agent) for k, agent in enumerate(self.possible_agents) if present[k]]
        result = (
            {agent: observed[agent] for _, agent in shown},
            {agent: float(rewards[0, k]) for k, agent in shown},
            {agent: bool(terminations[0, k]) for k, agent in shown},
            {agent: bool(truncations[0, k]) for k, agent in shown},
            {
                agent: {"alive": bool(alive[k]), "battle_won": bool(infos["battle_won"][0]), "broken": False}
                for k, agent in shown
            },
        )
        self.agents = [agent for k, agent in shown if not (terminations[0, k] or truncations[0, k])]
        if self.render_mode == "human":
            self.render()
        return result

    def _observe(self, observations: NDArray[np.float32], masks: NDArray[np.bool_]) -> dict[str, Any]:
        """Every agent's observation dict from the vector environment's single row."""
        return {
            agent: {"observation": observations[0, k], "action_mask": masks[0, k].astype(np.int8)}
            for k, agent in enumerate(self.possible_agents)
        }

    def state(self) -> NDArray[np.float32]:
        """JaxMARL's world state [S]: every unit's features, teams and types."""
        if self._world_state is None:
            raise RuntimeError("call reset() before state()")
        return self._world_state

    @property
    def state_space(self) -> spaces.Box:
        """The space of ``state()``."""
        return spaces.Box(-np.inf, np.inf, (int(self._vector.smax.state_size),), np.float32)

    def render(self) -> NDArray[np.uint8] | None:
        """Draw the battle: an RGB array [H, W, 3], or a window with ``render_mode="human"``."""
        if not self._last_units:
            raise RuntimeError("render() needs render_mode='rgb_array' or 'human', and reset() first")
        frame = draw(self._last_units, self._vector.smax.map_width, self._vector.smax.map_height)
        if self.render_mode == "rgb_array":
            return frame
        self._window = self._window or BattleWindow(self.env_id)
        self._window.show(frame)
        return None

    def close(self) -> None:
        """Close the window, if there is one; safe to call twice."""
        if self._window is not None:
            self._window.close()
            self._window = None
