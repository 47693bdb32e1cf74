"""SMAC as a PettingZoo ``ParallelEnv``: dicts, masks and ends of episodes on top of a game that may die."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from dm2_wrappers import _checks
from dm2_wrappers.envs.action_masks import available_actions
from dm2_wrappers.envs.smac import units
from dm2_wrappers.envs.smac.game import Game, StarCraftDiedError
from dm2_wrappers.envs.smac.render import old_shuffle
from dm2_wrappers.vector.reset_arguments import reset_options

NO_OP, STOP = 0, 1  # the no-ops of a dead and of a living agent; then four moves, then one action per target

Dicts = tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]


def seed_of(seed: int | None) -> int:
    """A seed as StarCraft takes it, of 32 bits; a random one for None.

    Raises:
        ValueError: It is not an integer.
    """
    seed = _checks.integer("seed", seed, none=True)
    return int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed % 2**32


class SMACParallelEnv(ParallelEnv):
    """One battle of SMAC with observations ``{"observation": float32 [D], "action_mask": int8 [A]}``.

    ``infos[agent]`` has ``"alive"`` (at the observation returned with it), ``"battle_won"`` and ``"broken"``: StarCraft
    died or did not answer in time, all agents were truncated with their last observations, and the next ``reset`` starts
    another StarCraft. Made by `dm2_wrappers.envs.smac.parallel_env`, which has the options.
    """

    def __init__(
        self,
        game: Game,
        map_name: str,
        *,
        remove_dead: bool = False,
        replace_unavailable: bool = False,
        agent_id: bool = True,
        last_action: bool = True,
        render_mode: str | None = None,
    ) -> None:
        smac = game.smac
        self.game = game
        self.env_id = f"smac:{map_name}"
        self.max_steps = int(smac.episode_limit)
        self.metadata = {"name": self.env_id, "render_modes": ["rgb_array", "human"], "is_parallelizable": True}
        self.render_mode = render_mode
        self._remove_dead, self._replace_unavailable = remove_dead, replace_unavailable
        self._agent_id, self._last_action = agent_id, last_action
        n, self._num_actions = int(smac.n_agents), int(smac.n_actions)
        types = units.ally_types(map_name, smac.map_type, n)
        self.possible_agents = list(units.number(types))
        self.agents: list[str] = []
        # With the time step SMAC's observations are one longer than it says.
        self._own_size = int(smac.get_obs_size()) + bool(smac.obs_timestep_number)
        size = self._own_size + self._num_actions * last_action + n * agent_id
        # SMAC's features lie within [-1, 1] or close to it, but it promises no bounds.
        box = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        mask = spaces.Box(0, 1, (self._num_actions,), np.int8)
        self.observation_spaces = {
            agent: spaces.Dict({"observation": box, "action_mask": mask}) for agent in self.possible_agents
        }
        self.action_spaces: dict[str, spaces.Space[Any]] = {
            agent: spaces.Discrete(self._num_actions) for agent in self.possible_agents
        }
        # SMAC's features, last action and number, [K, D]; the number is the same in every step.
        self._no_rows = np.zeros((n, size), np.float32)
        if agent_id:
            self._no_rows[:, size - n :] = np.eye(n)
        self._rows, self._indices = self._no_rows, list(range(n))
        self._masks: list[list[int]] = []  # [K, A]
        self._alive: list[bool] = [False] * n
        # SMAC keeps a reference to its environment until the interpreter ends: without this, so would StarCraft go on.
        self._ending = weakref.finalize(self, game.stop)

    def observation_space(self, agent: str) -> spaces.Dict:
        """The space of one agent's observation and action mask."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """The space of one agent's actions: no-op, stop, four moves, and one per target."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start a new battle, and StarCraft where it does not run; a seed starts StarCraft anew with it.

        Raises:
            RuntimeError: The environment is closed, or StarCraft does not start.
            ValueError: The seed is not an integer.
            TypeError: ``options``, of which none are used, is not a dict.
        """
        self._check_open()
        reset_options(options)
        number = None if seed is None else seed_of(seed)
        self.agents = []
        if number is not None:
            self.game.seed(number)
        self.game.reset()
        units.check_types(self.possible_agents, self.game.smac.map_type, self.game.smac.agents)
        self.agents = self.possible_agents.copy()
        self._look(None)
        if self.render_mode == "human":
            self.render()
        infos = {
            agent: {"alive": self._alive[k], "battle_won": False, "broken": False}
            for k, agent in enumerate(self.possible_agents)
        }
        return self._observe(self.agents), infos

    def step(self, actions: dict[str, int]) -> Dicts:
        """Take one joint step; ``actions`` has one available action for each of ``agents``.

        Raises:
            RuntimeError: The environment is closed, or the episode is over.
            ValueError: Not one action for each agent, or an unavailable one; nothing has changed.
        """
        self._check_open()
        if not self.agents:
            raise RuntimeError("the episode is over: call reset() before step()")
        joint = self._joint(actions)
        present, self.agents = self.agents, []  # on an error in between, the next thing to do is reset()
        broken = won = limit = False
        reward = 0.0
        try:
            reward, over, info, played = self.game.step(joint)
            won, limit = bool(info["battle_won"]), bool(info.get("episode_limit", False))
        except StarCraftDiedError:
            over = broken = True
        else:
            self._look(played)
        cut = broken or limit
        terminations, truncations, infos = {}, {}, {}
        for k, agent in enumerate(self.possible_agents):
            if agent in present:
                died = self._remove_dead and not self._alive[k] and not broken
                terminations[agent] = died or (over and not cut)
                truncations[agent] = cut and not died
                infos[agent] = {"alive": self._alive[k], "battle_won": won, "broken": broken}
        if over:
            idle = [STOP if alive else NO_OP for alive in self._alive]
            self._masks = [[int(a == no_op) for a in range(self._num_actions)] for no_op in idle]
        observations = self._observe(present)
        self.agents = [agent for agent in present if not (terminations[agent] or truncations[agent])]
        if self.render_mode == "human" and not broken:
            self.render()
        return observations, dict.fromkeys(present, reward), terminations, truncations, infos

    def _joint(self, actions: dict[str, int]) -> list[int]:
        """One action for each of SMAC's agents; unavailable ones are refused or replaced."""
        if actions.keys() != set(self.agents):
            raise ValueError(f"expected one action for each of {self.agents}, got actions for {sorted(actions)}")
        joint = [actions.get(agent, NO_OP) for agent in self.possible_agents]  # those who have left are dead
        with contextlib.suppress(TypeError):  # of floats and the like
            # The usual case, without NumPy, which takes longer for a handful of numbers.
            if all(0 <= a < self._num_actions and mask[a] for a, mask in zip(joint, self._masks, strict=True)):
                return list(map(int, joint))
        no_op = np.where(self._alive, STOP, NO_OP)
        masks = np.array([self._masks])
        return available_actions([joint], masks, no_op, self.possible_agents, replace=self._replace_unavailable)[0].tolist()

    def _look(self, played: list[int] | None) -> None:
        """Take over what SMAC shows now; ``played`` is what led there."""
        smac, own = self.game.smac, self._own_size
        self._masks = smac.get_avail_actions()
        self._alive = [not mask[NO_OP] for mask in self._masks]  # SMAC allows no-op to the dead alone
        self._rows = self._no_rows.copy()
        self._rows[:, :own] = smac.get_obs()
        if self._last_action and played is not None:
            self._rows[self._indices, [own + action for action in played]] = 1
        if not all(self._alive):
            self._rows[np.logical_not(self._alive)] = 0

    def _observe(self, agents: list[str]) -> dict[str, Any]:
        """The agents' observation dicts, in new arrays."""
        rows, masks = self._rows.copy(), np.array(self._masks, np.int8)
        return {
            agent: {"observation": rows[k], "action_mask": masks[k]}
            for k, agent in enumerate(self.possible_agents)
            if agent in agents
        }

    def state(self) -> NDArray[np.float32]:
        """SMAC's global state [S]."""
        if not self.game.smac.agents:
            raise RuntimeError("call reset() before state()")
        return np.asarray(self.game.smac.get_state(), np.float32)

    @property
    def state_space(self) -> spaces.Box:
        """The space of ``state()``."""
        smac = self.game.smac
        size = self._own_size * smac.n_agents if smac.obs_instead_of_state else smac.get_state_size()
        return spaces.Box(-np.inf, np.inf, (int(size),), np.float32)

    def render(self) -> NDArray[np.uint8] | None:
        """Draw the battle with SMAC's own renderer: an RGB array [H, W, 3], or a window with ``render_mode="human"``."""
        self._check_running("render")
        if self.render_mode is None:
            raise RuntimeError("render() needs render_mode='rgb_array' or 'human'")
        with old_shuffle():
            frame = self.game.smac.render(mode=self.render_mode)
        return frame if self.render_mode == "rgb_array" else None

    def save_replay(self) -> None:
        """Save StarCraft's replay of all battles since its start, in SMAC's ``replay_dir``.

        By default that is the folder ``Replays`` of StarCraft II; the file is named after the map and the time.

        Raises:
            RuntimeError: StarCraft does not run: before ``reset``, or after it died.
        """
        self._check_running("save_replay")
        self.game.smac.save_replay()

    def close(self) -> None:
        """End StarCraft; safe to call twice."""
        self.agents = []
        self._ending()

    def _check_open(self) -> None:
        if not self._ending.alive:
            raise RuntimeError("this environment is closed; make a new one")

    def _check_running(self, what: str) -> None:
        self._check_open()
        if not self.game.running:
            raise RuntimeError(f"{what}() needs a running StarCraft: call reset() first")
