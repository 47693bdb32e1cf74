"""The environment of `check_dm2_learner`: only a bait is paid, every observation names its agent and its step."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from dm2_wrappers.demonstrations import Demonstrations

AGENTS = ("first", "second", "brief")
STEPS = 8  # of an episode
BRIEF_STEPS = 3  # after which the last agent leaves
LIFETIMES = (STEPS, STEPS, BRIEF_STEPS)
SIZE = 2 + len(AGENTS)  # the newest move, one-hot agent, step stamp


def observation(k: int, move: float, t: int) -> NDArray[np.float32]:
    """What agent k sees at time t after this move: no row of zeros, and no two agents or times alike."""
    row = np.zeros(SIZE, np.float32)
    row[0], row[1 + k], row[-1] = move, 1.0, (t + 1) / STEPS
    return row


class BaitEnv(ParallelEnv):
    """Three agents move left, stay or move right; the environment pays each move to the right.

    An agent observes its newest move (-1, 0 or 1; 0 at the start), its own number (one-hot) and the step. Episodes have
    8 steps and end by truncation. The last agent leaves after 3 steps: it is terminated, then gone.

    Args:
        bait: The reward for a move to the right; a move to the left costs as much.
        tally: A file to which each joint step appends one byte, its time in the episode, in any process; None: no file.
    """

    metadata = {"name": "dm2_learner_check", "render_modes": []}  # noqa: RUF012

    def __init__(self, bait: float = 10.0, tally: str | None = None) -> None:
        self.bait, self.tally = bait, tally
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        self.render_mode = None
        box = spaces.Box(-2.0, 2.0, (SIZE,), np.float32)
        self.observation_spaces = dict.fromkeys(AGENTS, box)
        self.action_spaces: dict[str, spaces.Space[Any]] = {agent: spaces.Discrete(3) for agent in AGENTS}
        self._time = 0

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """The same for every agent."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """0: left, 1: stay, 2: right."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, dict[str, Any]]]:
        """Start a new episode; they all start alike."""
        self.agents = list(AGENTS)
        self._time = 0
        return {agent: observation(k, 0.0, 0) for k, agent in enumerate(AGENTS)}, {agent: {} for agent in AGENTS}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """Move every agent that is still there."""
        self._count()
        self._time += 1
        moves = {agent: float(int(np.asarray(actions[agent]).item()) - 1) for agent in self.agents}
        over = self._time == STEPS
        observations, terminations = {}, {}
        for agent, move in moves.items():
            k = AGENTS.index(agent)
            observations[agent] = observation(k, move, self._time)
            terminations[agent] = self._time == LIFETIMES[k] < STEPS
        rewards = {agent: self.bait * move for agent, move in moves.items()}
        self.agents = [] if over else [agent for agent in moves if not terminations[agent]]
        return observations, rewards, terminations, dict.fromkeys(moves, over), {agent: {} for agent in moves}

    def _count(self) -> None:
        if self.tally is not None:
            file = os.open(self.tally, os.O_WRONLY | os.O_APPEND)
            os.write(file, bytes([self._time]))
            os.close(file)

    def close(self) -> None:
        """Nothing to close."""


def steps_played(tally: str) -> list[int]:
    """How often the environments with this tally made their first, second, ... step of an episode."""
    with open(tally, "rb") as file:
        times = np.frombuffer(file.read(), np.uint8)
    return np.bincount(times, minlength=STEPS).tolist()


def experts(directions: tuple[int, ...], seed: int, episodes: int = 64) -> Demonstrations:
    """Experts that move in their direction (-1 or 1) nine times in ten, and else stay."""
    rng = np.random.default_rng(seed)
    joint = []
    for _ in range(episodes):
        rows, alive = {}, {}
        for k, agent in enumerate(AGENTS):
            moves = np.where(rng.random(STEPS) < 0.9, directions[k], 0)
            moves[0] = 0
            rows[agent] = np.stack([observation(k, moves[t], t) for t in range(STEPS)])
            alive[agent] = np.arange(STEPS) < LIFETIMES[k]
        joint.append({"observations": rows, "alive": alive})
    return Demonstrations.from_episodes(joint)


def places(policy: Any, episodes: int = 40) -> NDArray[np.float64]:
    """Where a policy goes: each agent's mean move, -1 (always left) to 1 (always right), [K].

    An agent's last move of an episode does not count: no observation before an action shows it, so r_gail cannot pay it.
    """
    env = BaitEnv()
    total = np.zeros(len(AGENTS))
    for _ in range(episodes):
        observations, _ = env.reset()
        while env.agents:
            actions = policy({agent: observations[agent] for agent in env.agents})
            observations = env.step({agent: actions[agent] for agent in env.agents})[0]
            for agent in env.agents:
                total[AGENTS.index(agent)] += observations[agent][0]
    return total / (episodes * (np.array(LIFETIMES) - 1))
