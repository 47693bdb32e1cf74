"""A stand-in for SMAC's ``StarCraft2Env``: its interface and its quirks, on a tiny battle instead of StarCraft.

The quirks that an adapter must handle are all here: what happens when the game dies, the reward scale that drifts, the
wait for units without end, illegal actions refused too late, ``close()`` that the next ``reset()`` undoes, and others;
each is marked "quirk". The "game" is a real process that only sleeps, so that killing and leaving it behind are real.

Subclasses set the class attributes below to make it fail.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import numpy as np

MAPS: dict[str, dict[str, Any]] = {
    "3m": {"allies": [2005] * 3, "enemies": [48] * 3, "limit": 60, "map_type": "marines"},
    "5m_vs_6m": {"allies": [2005] * 5, "enemies": [48] * 6, "limit": 70, "map_type": "marines"},
    "2s3z": {"allies": [2005, 2006, 2006, 2005, 2006], "enemies": [74] * 2 + [73] * 3, "limit": 120, "map_type": "stalkers_and_zealots"},  # noqa: E501
    "mine": {"allies": [2005, 2006], "enemies": [48] * 2, "limit": 30, "map_type": "stalkers_and_zealots"},
}  # fmt: skip
SHIELDS = {"2s3z": 20, "mine": 20}


class ConnectionLostError(Exception):
    """As pysc2's ConnectionError."""


class ConnectError(Exception):
    """As pysc2's, when a launch fails."""


class Process:
    """The game: a battle, and a sleeping process that stands for StarCraft's."""

    def __init__(self, env: StarCraft2Env) -> None:
        if env._seed is not None and not 0 <= env._seed < 2**32:
            raise ValueError(f"Value out of range: {env._seed}")  # quirk: protobuf's, and only at reset
        cls = type(env)
        self.popen = subprocess.Popen(["sleep", "600"])
        self.env, self.rng, self.steps = env, random.Random(env._seed), 0
        plan = cls.crash_after[len(env.pids) :]
        self.crash_after = plan[0] if plan else 0
        env.pids.append(self.popen.pid)
        self.units: list[SimpleNamespace] = []
        self.waiting: list[SimpleNamespace] = []
        self.next_tag = 1  # quirk: tags restart with every process
        self.spawn()

    @property
    def pid(self) -> int | None:
        return self.popen.pid if self.popen.poll() is None else None

    def check(self) -> None:
        if self.popen.poll() is not None:
            raise ConnectionLostError("SC2 probably crashed")

    def spawn(self) -> None:
        """Both teams, at once or (``spawn_delay``) one unit per step, so that ``init_units`` has to wait."""
        params = MAPS[self.env.map_name]
        new = []
        for owner, types in ((1, params["allies"]), (2, params["enemies"])):
            for i, unit_type in enumerate(types):
                shield = SHIELDS.get(self.env.map_name, 0)
                position = SimpleNamespace(x=(9.0 if owner == 1 else 22.0) + self.rng.uniform(0, 0.5), y=14.0 + i)
                unit = SimpleNamespace(tag=self.next_tag, owner=owner, unit_type=unit_type, pos=position, health=45.0)
                unit.shield, unit.health_max, unit.shield_max, unit.weapon_cooldown = shield, 45.0, shield, 0.0
                self.next_tag += 1
                new.append(unit)
        if type(self.env).spawn_delay:
            self.waiting = new[1:] if type(self.env).spawn_delay > 0 else []
            new = new[:1]
        self.units += new

    def step(self, count: int) -> None:
        self.check()
        self.steps += 1
        if self.steps == self.crash_after:
            self.popen.kill()
            self.popen.wait()
        self.check()
        if self.waiting:
            self.units.append(self.waiting.pop(0))
        elif not self.units:
            self.spawn()
        if count > 2:  # a step of the agents', not one of a reset
            self.fight()

    def fight(self) -> None:
        for enemy in [unit for unit in self.units if unit.owner == 2]:
            allies = [unit for unit in self.units if unit.owner == 1]
            if type(self.env).passive or not allies:
                return
            target = min(allies, key=lambda ally: math.hypot(ally.pos.x - enemy.pos.x, ally.pos.y - enemy.pos.y))
            distance = math.hypot(target.pos.x - enemy.pos.x, target.pos.y - enemy.pos.y)
            if distance <= 5:
                self.hit(target, 1.5 + self.rng.random())
            else:
                enemy.pos.x += 2 * (target.pos.x - enemy.pos.x) / distance
                enemy.pos.y += 2 * (target.pos.y - enemy.pos.y) / distance

    def hit(self, unit: SimpleNamespace, damage: float) -> None:
        absorbed = min(unit.shield, damage)
        unit.shield -= absorbed
        unit.health -= damage - absorbed
        if unit.health <= 0:
            self.units.remove(unit)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()


class StarCraft2Env:
    """See the module."""

    crash_after: tuple[int, ...] = ()  # per launch: the step request (a reset's count, too) at which it dies; 0: never
    fail_launches: tuple[int, ...] = ()  # numbers of launches (from 1) that fail
    spawn_delay = 0  # 1: units come one per step; -1: all but one never come
    passive = False  # the enemy does nothing
    kept: list[Any] = []

    def __init__(
        self,
        map_name="8m",
        step_mul=8,
        difficulty="7",
        seed=None,
        continuing_episode=False,
        obs_instead_of_state=False,
        obs_timestep_number=False,
        state_last_action=True,
        reward_sparse=False,
        reward_death_value=10,
        reward_win=200,
        reward_scale=True,
        reward_scale_rate=20,
        replay_dir="",
        replay_prefix="",
        heuristic_ai=False,
        debug=False,
    ):
        params = MAPS[map_name]
        self.map_name, self.difficulty, self._seed = map_name, difficulty, seed
        self.n_agents, self.n_enemies = len(params["allies"]), len(params["enemies"])
        self.episode_limit, self.map_type = params["limit"], params["map_type"]
        self.continuing_episode, self.heuristic_ai = continuing_episode, heuristic_ai
        self.obs_instead_of_state, self.obs_timestep_number = obs_instead_of_state, obs_timestep_number
        self.state_last_action, self._step_mul = state_last_action, step_mul
        self.reward_sparse, self.reward_win, self.reward_death_value = reward_sparse, reward_win, reward_death_value
        self.reward_scale, self.reward_scale_rate = reward_scale, reward_scale_rate
        self.replay_dir, self.replay_prefix = replay_dir, replay_prefix
        self.n_actions = 6 + self.n_enemies
        self.max_reward = self.n_enemies * reward_death_value + reward_win
        self.agents, self.enemies = {}, {}
        self._episode_count = self._episode_steps = self.battles_game = self.battles_won = self.timeouts = 0
        self.force_restarts = 0
        self.last_action = np.zeros((self.n_agents, self.n_actions))
        self._sc2_proc = self._obs = None
        self.pids = []  # of every process ever launched
        self.attempts = 0
        self.kept.append(self)  # quirk: an atexit handler keeps the environment alive

    def _launch(self):
        self.attempts += 1
        if self.attempts in type(self).fail_launches:
            raise ConnectError("Failed to connect to the SC2 websocket. Is it up?")
        self._sc2_proc = Process(self)

    def reset(self):
        self._episode_steps = 0
        if self._episode_count == 0:  # quirk: until an episode has ended every reset launches
            self._launch()
        else:
            self._restart()
        self.last_action = np.zeros((self.n_agents, self.n_actions))
        try:
            self.observe()
            self.init_units()
        except ConnectionLostError:
            self.full_restart()
        return self.get_obs(), self.get_state()

    def _restart(self):
        tags = [unit.tag for unit in [*self.agents.values(), *self.enemies.values()] if unit.health > 0]
        try:
            self._sc2_proc.check()
            # quirk: these may be tags of a dead process, whose numbers are those of other units now
            self._sc2_proc.units = [unit for unit in self._sc2_proc.units if unit.tag not in tags]
            self._sc2_proc.step(2)
        except ConnectionLostError:
            self.full_restart()

    def full_restart(self):
        self._sc2_proc.close()
        self._launch()
        self.force_restarts += 1

    def observe(self):
        self._sc2_proc.check()
        self._obs = deepcopy(self._sc2_proc.units)

    def init_units(self):
        while True:  # quirk: without end
            allies = sorted((u for u in self._obs if u.owner == 1), key=lambda u: (u.unit_type, u.pos.x, u.pos.y))
            self.agents = dict(enumerate(allies))
            self.enemies = dict(enumerate(u for u in self._obs if u.owner == 2))
            if self._episode_count == 0:  # quirk: once per look and launch
                self.max_reward += sum(u.health_max + u.shield_max for u in self.enemies.values())
            if len(self.agents) == self.n_agents and len(self.enemies) == self.n_enemies:
                return
            try:
                self._sc2_proc.step(1)
                self.observe()
            except ConnectionLostError:
                self.full_restart()
                self.reset()

    def step(self, actions):
        chosen = [int(a) for a in actions]
        self.last_action = np.eye(self.n_actions)[np.array(chosen)]  # quirk: before they are checked
        available = self.get_avail_actions()
        if self.heuristic_ai:
            for k, mask in enumerate(available):
                legal = [a for a, allowed in enumerate(mask) if allowed]
                actions[k] = chosen[k] = legal[-1]  # quirk: the caller's list is changed
        for k, action in enumerate(chosen):  # quirk: an action too few is not noticed
            assert available[k][action] == 1, f"Agent {k} cannot perform action {action}"
        process = self._sc2_proc
        try:
            process.check()
            for k, action in enumerate(chosen):
                self.order(k, action)
            process.step(self._step_mul)
            self.observe()
        except ConnectionLostError:
            self.full_restart()
            return 0, True, {}  # quirk: no info, and the observations are old
        self._episode_steps += 1
        before = {k: (u.health + u.shield) for k, u in self.enemies.items()}
        for side in (self.agents, self.enemies):
            for k, unit in side.items():
                found = [other for other in self._obs if other.tag == unit.tag]
                side[k] = found[0] if found else unit
                unit.health = unit.health if found else 0
        allies = sum(u.health > 0 for u in self.agents.values())
        enemies = sum(u.health > 0 for u in self.enemies.values())
        reward = 0.0
        if not self.reward_sparse:
            for k, unit in self.enemies.items():
                if before[k] > 0 and unit.health > 0:
                    reward += before[k] - unit.health - unit.shield
                elif before[k] > 0:
                    unit.shield = 0
                    reward += before[k] + self.reward_death_value
        info = {"battle_won": False, "dead_allies": self.n_agents - allies, "dead_enemies": self.n_enemies - enemies}
        terminated = not (allies and enemies)
        if terminated:
            self.battles_game += 1
            if allies:
                self.battles_won += 1
                info["battle_won"] = True
                reward += 1 if self.reward_sparse else self.reward_win
        elif self._episode_steps >= self.episode_limit:
            terminated = True
            if self.continuing_episode:  # quirk: a time limit is told only then
                info["episode_limit"] = True
            self.battles_game += 1
            self.timeouts += 1
        self._episode_count += terminated
        if self.reward_scale:
            reward /= self.max_reward / self.reward_scale_rate
        return reward, terminated, info

    def order(self, k, action):
        unit = next((u for u in self._sc2_proc.units if u.tag == self.agents[k].tag), None)
        if unit is None or action < 2:
            return
        if action < 6:
            dx, dy = ((0, 2), (0, -2), (2, 0), (-2, 0))[action - 2]
            unit.pos.x, unit.pos.y = unit.pos.x + dx, unit.pos.y + dy
        else:
            target = next((u for u in self._sc2_proc.units if u.tag == self.enemies[action - 6].tag), None)
            if target is not None:
                self._sc2_proc.hit(target, 6.0)

    @staticmethod
    def _apart(one, other):
        return math.hypot(one.pos.x - other.pos.x, one.pos.y - other.pos.y)

    def get_avail_agent_actions(self, k):
        unit = self.agents[k]  # quirk: a KeyError before the first reset
        if unit.health <= 0:
            return [1] + [0] * (self.n_actions - 1)
        moves = [unit.pos.y + 1 < 30, unit.pos.y - 1 > 2, unit.pos.x + 1 < 30, unit.pos.x - 1 > 2]
        attacks = [enemy.health > 0 and self._apart(unit, enemy) <= 6 for enemy in self.enemies.values()]
        return [0, 1, *map(int, moves), *map(int, attacks)]

    def get_avail_actions(self):
        return [self.get_avail_agent_actions(k) for k in range(self.n_agents)]

    def get_obs_agent(self, k):
        unit, row = self.agents[k], np.zeros(4 + 4 * (self.n_enemies + self.n_agents - 1) + 1, np.float32)
        if unit.health > 0:
            row[:4] = self.get_avail_agent_actions(k)[2:6]
            others = [*self.enemies.values(), *(u for i, u in self.agents.items() if i != k)]
            for i, other in enumerate(others):
                distance = self._apart(unit, other)
                if distance < 9 and other.health > 0:
                    place = [(other.pos.x - unit.pos.x) / 9, (other.pos.y - unit.pos.y) / 9]
                    row[4 + 4 * i : 8 + 4 * i] = [distance / 9, *place, other.health / 45]
            row[-1] = unit.health / 45
        if self.obs_timestep_number:  # quirk: one longer than get_obs_size(), float64, and the dead see it
            return np.append(np.append(row, 0.0), self._episode_steps / self.episode_limit)
        return row

    def get_obs(self):
        return [self.get_obs_agent(k) for k in range(self.n_agents)]

    def get_obs_size(self):
        return 4 + 4 * (self.n_enemies + self.n_agents - 1) + 1 + self.obs_timestep_number

    def get_state(self):
        if self.obs_instead_of_state:
            return np.concatenate(self.get_obs()).astype(np.float32)
        units = [[u.health / 45, u.pos.x, u.pos.y] for u in [*self.agents.values(), *self.enemies.values()]]
        state = np.ravel(units)
        return (np.append(state, self.last_action) if self.state_last_action else state).astype(np.float32)

    def get_state_size(self):
        if self.obs_instead_of_state:
            return self.get_obs_size() * self.n_agents
        return 3 * (self.n_agents + self.n_enemies) + self.state_last_action * self.n_agents * self.n_actions

    def get_total_actions(self):
        return self.n_actions

    def seed(self):
        return self._seed  # quirk: it seeds nothing

    def render(self, mode="human"):
        if mode == "rgb_array":
            return np.full((20, 30, 3), self._episode_steps, np.uint8)
        return None

    def save_replay(self):
        self._sc2_proc.check()
        name = f"{self.replay_prefix or self.map_name}_{self._sc2_proc.steps}.SC2Replay"
        with open(os.path.join(self.replay_dir, name), "wb") as file:
            file.write(b"replay")

    def close(self):
        if self._sc2_proc:
            self._sc2_proc.close()

    def get_stats(self):
        return {"win_rate": self.battles_won / self.battles_game}  # quirk: division by zero before the first end
