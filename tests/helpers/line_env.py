"""Two agents on a line that pays nothing: only r_gail can teach them where to go."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

import dm2_wrappers as dm2

STEPS = 6


class LineEnv(ParallelEnv):
    """Agents see ``[place, time]`` and step left, stay or step right. An episode ends after six steps (a time limit)."""

    def __init__(self):
        self.metadata, self.render_mode = {"name": "line"}, None
        self.possible_agents = ["left", "right"]
        self.agents = []
        self.observation_spaces = {agent: spaces.Box(-1, 1, (2,), np.float32) for agent in self.possible_agents}
        self.action_spaces = {agent: spaces.Discrete(3) for agent in self.possible_agents}

    def observation_space(self, agent):
        return self.observation_spaces[agent]

    def action_space(self, agent):
        return self.action_spaces[agent]

    def reset(self, seed=None, options=None):
        self.agents, self.t, self.places = list(self.possible_agents), 0, dict.fromkeys(self.possible_agents, 0)
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.t += 1
        for agent, action in actions.items():
            self.places[agent] += int(action) - 1
        over = self.t == STEPS
        result = (
            self._observations(),
            dict.fromkeys(self.agents, 0.0),
            dict.fromkeys(self.agents, False),
            dict.fromkeys(self.agents, over),
            {agent: {} for agent in self.agents},
        )
        if over:
            self.agents = []
        return result

    def _observations(self):
        return {agent: np.array([place / STEPS, self.t / STEPS], np.float32) for agent, place in self.places.items()}


def experts(mirrored=False):
    """Demonstrations in which "left" steps left and "right" steps right; mirrored, the other way round."""
    actions = {"left": 2, "right": 0} if mirrored else {"left": 0, "right": 2}
    return dm2.Demonstrations.record(LineEnv(), lambda observations: {a: actions[a] for a in observations}, 10)


def places(policy, episodes=20):
    """Where each agent is at the end, on average, from -6 to 6."""
    env, ends = LineEnv(), []
    for _ in range(episodes):
        observations, _ = env.reset()
        while env.agents:
            observations, *_ = env.step(policy(observations))
        ends.append([env.places[agent] for agent in env.possible_agents])
    return dict(zip(env.possible_agents, np.mean(ends, axis=0), strict=True))
