"""Teams learn from experts' observations alone, on environments of other packages that are installed everywhere."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from mpe2 import simple_spread_v3
from stable_baselines3 import PPO

import dm2_wrappers as dm2
from dm2_wrappers.envs import from_gymnasium

LEFT, RIGHT = 1, 2


def spread():
    return simple_spread_v3.parallel_env(N=2, max_cycles=10)


def drift(policy, episodes=10):
    """How far to the right each agent moves in an episode, [K]."""
    env, total = spread(), np.zeros(2)
    for episode in range(episodes):
        observations, _ = env.reset(seed=100 + episode)
        total -= [observations[agent][2] for agent in env.possible_agents]  # its x
        while env.agents:
            observations, *_ = env.step(policy(observations))
        total += [observations[agent][2] for agent in env.possible_agents]
    return total / episodes


@pytest.mark.parametrize("directions", [(LEFT, RIGHT), (RIGHT, LEFT)])
def test_agents_follow_experts_and_mirrored_experts_on_mpe(directions):
    """The two agents' experts go opposite ways, so it shows if an agent learns from the other's experts."""

    def experts(observations):
        return dict(zip(("agent_0", "agent_1"), directions, strict=True))

    demos = dm2.Demonstrations.record(spread(), experts, 10, seed=0)
    team = dm2.sb3.IndependentLearners(
        PPO,
        dm2.vectorize(spread, 8),
        matcher=dm2.DistributionMatcher(demos, seed=0, updates=10, batch_size=64, standardize=True),
        coefficient=1.0,
        env_coefficient=0.0,
        seed=0,
        device="cpu",
        n_steps=32,
        batch_size=128,
        n_epochs=8,
        learning_rate=5e-3,
        gamma=0.8,
    )
    team.learn(1536)
    share = drift(team.predict) / drift(experts)
    assert (share > 0.25).all(), f"of the experts' way, the agents went {share}"


def test_one_agent_learns_to_balance_a_pole_from_experts():
    def make():
        return from_gymnasium(gymnasium.make("CartPole-v1", max_episode_steps=200))

    def expert(observations):
        return {agent: int(seen @ np.array([0.05, 0.3, 1.0, 1.0]) > 0) for agent, seen in observations.items()}

    demos = dm2.Demonstrations.record(make(), expert, 5, seed=1)
    assert demos.mean_length == 200
    venv = dm2.vectorize(make, 8)
    team = dm2.sb3.IndependentLearners(
        PPO,
        venv,
        matcher=dm2.DistributionMatcher(demos, seed=0, ends="absorbing"),
        coefficient=1.0,
        env_coefficient=0.0,
        seed=0,
        device="cpu",
        n_steps=64,
        batch_size=128,
        n_epochs=4,
        learning_rate=3e-3,
    )
    untrained = team.evaluate(venv, 8, seed=9)["length"]
    assert untrained < 40
    team.learn(4096)
    assert team.evaluate(venv, 8, seed=9)["length"] > 60
