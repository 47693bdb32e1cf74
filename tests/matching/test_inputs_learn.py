"""What a discriminator of states cannot teach: experts that differ in their actions alone, and the team's own successes."""

import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import ParallelEnv
from stable_baselines3 import PPO

import dm2_wrappers as dm2

FAST = {
    "n_steps": 12,
    "batch_size": 48,
    "n_epochs": 8,
    "learning_rate": 1e-2,
    "device": "cpu",
    "policy_kwargs": {"net_arch": [8]},
    "seed": 0,
}
# A tiny task: large steps of the discriminators, and little smoothness.
DISCRIMINATORS = {"batch_size": 32, "updates": 20, "learning_rate": 1e-2, "gradient_penalty": 1.0, "seed": 0}


class Buttons(ParallelEnv):
    """Two agents that always see the same press one of two buttons, six times; nothing is ever earned."""

    metadata = {"name": "buttons"}
    possible_agents = ["left", "right"]
    render_mode = None
    steps = 6

    def observation_space(self, agent):
        return spaces.Box(0, 1, (1,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.t, self.sequence = self.possible_agents.copy(), 0, []
        return self.observe(), {agent: {} for agent in self.agents}

    def observe(self):
        return {agent: np.ones(1, np.float32) for agent in self.possible_agents}

    def step(self, actions):
        self.t += 1
        self.sequence.append((actions["left"], actions["right"]))
        over = self.t == self.steps
        agents, self.agents = self.agents, [] if over else self.agents
        return (
            self.observe(),
            dict.fromkeys(agents, self.earned()),
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, over),
            {agent: {} for agent in agents},
        )

    def earned(self):
        return 0.0


class Combination(Buttons):
    """The agents see the time. The team earns 10 at the end if both have always pressed the right buttons."""

    metadata = {"name": "combination"}
    steps = 4
    secret = ((1, 1), (0, 1), (1, 0), (0, 0))

    def observation_space(self, agent):
        return spaces.Box(0, 1, (self.steps,), np.float32)

    def observe(self):
        return {agent: np.eye(self.steps, dtype=np.float32)[min(self.t, self.steps - 1)] for agent in self.possible_agents}

    def earned(self):
        return 10.0 if tuple(self.sequence) == self.secret else 0.0


@pytest.mark.parametrize("mode", ["exact", "online"])
def test_experts_that_differ_in_actions_alone_are_imitated(mode):
    demos = dm2.Demonstrations.record(Buttons(), lambda observations: {"left": 0, "right": 1}, 10, seed=0)
    states = dm2.DistributionMatcher(demos, seed=0)
    assert len(np.unique(states.rewards(demos.padded_observations)[:, 0])) == 1  # states tell nothing here
    matcher = dm2.DistributionMatcher(demos, inputs="state-action", **DISCRIMINATORS)
    team = dm2.sb3.IndependentLearners(
        PPO, dm2.vectorize(Buttons, 8), matcher=matcher, coefficient=1.0, mode=mode, update_every=96, **FAST
    )
    team.learn(96 * 7)
    pressed = np.array([[*team.predict({a: np.ones(1, np.float32) for a in ("left", "right")}).values()] for _ in range(50)])
    assert pressed.mean(0)[0] < 0.1
    assert pressed.mean(0)[1] > 0.9


def test_a_team_that_imitates_its_best_episodes_keeps_a_rare_success():
    """Until the first success both teams are the same; then one of them forgets it."""

    def shares_of_success(coefficient):
        venv = dm2.vectorize(Combination, 8)
        source = dm2.SelfImitation(env=venv, episodes=4)
        spaces = venv.action_spaces
        matcher = dm2.DistributionMatcher(source, inputs="state-action", action_spaces=spaces, **DISCRIMINATORS)
        team = dm2.sb3.IndependentLearners(PPO, venv, matcher=matcher, coefficient=coefficient, **{**FAST, "seed": 1})
        team.learn(96 * 16)
        return np.mean([episode["r"] for episode in team.models["left"].ep_info_buffer]) / 10

    assert shares_of_success(0.0) < 0.1
    assert shares_of_success(1.0) > 0.3
