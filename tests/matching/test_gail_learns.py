"""GAIL alone teaches a team: two walkers without any reward of the environment do what the experts did."""

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv
from stable_baselines3 import PPO

import dm2_wrappers as dm2

FAR = 6


class Walkers(ParallelEnv):
    """Each of two agents walks on a line of places 0 ... 6 from its middle, for 12 steps; nothing is ever earned."""

    metadata = {"name": "walkers"}
    possible_agents = ["left", "right"]
    render_mode = None

    def observation_space(self, agent):
        return spaces.Box(0, 1, (FAR + 1,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(3)

    def observe(self):
        return {agent: np.eye(FAR + 1, dtype=np.float32)[place] for agent, place in self.places.items()}

    def reset(self, seed=None, options=None):
        self.agents, self.t = self.possible_agents.copy(), 0
        self.places = dict.fromkeys(self.agents, FAR // 2)
        return self.observe(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.places = {a: int(np.clip(place + actions[a] - 1, 0, FAR)) for a, place in self.places.items()}
        self.t += 1
        over = self.t == 12
        agents, self.agents = self.agents, [] if over else self.agents
        return (
            self.observe(),
            dict.fromkeys(agents, 0.0),
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, over),
            {agent: {} for agent in agents},
        )


def mean_places(env, policy, episodes=20):
    """Where each agent is on average over the second half of its episodes."""
    seen = {agent: [] for agent in env.possible_agents}
    for seed in range(episodes):
        observations, _ = env.reset(seed=seed)
        while env.agents:
            observations = env.step(policy(observations))[0]
            if env.t > 6:
                for agent, place in env.places.items():
                    seen[agent].append(place)
    return {agent: float(np.mean(places)) for agent, places in seen.items()}


def test_a_team_without_any_reward_learns_to_do_what_its_experts_did():
    experts = {"left": 0, "right": 2}
    demos = dm2.Demonstrations.record(Walkers(), lambda observations: experts, 20, seed=0)
    team = dm2.sb3.IndependentLearners(
        PPO,
        dm2.vectorize(Walkers, 8),
        matcher=dm2.DistributionMatcher(demos, batch_size=64, updates=30, seed=0),
        coefficient=1.0,
        env_coefficient=0.0,
        seed=0,
        n_steps=24,
        batch_size=96,
        n_epochs=4,
        learning_rate=3e-3,
        device="cpu",
        policy_kwargs={"net_arch": [32]},
    )
    before = mean_places(Walkers(), team.predict)
    team.learn(8 * 24 * 60)
    after = mean_places(Walkers(), team.predict)
    assert before["left"] > 1.5
    assert before["right"] < 4.5
    assert after["left"] < 0.7
    assert after["right"] > FAR - 0.7
