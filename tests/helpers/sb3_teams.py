"""Small SB3 teams on tiny environments."""

import numpy as np
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, PPO

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.tiny_envs import TinyEnv

OPTIONS = {"sizes": (4, 3), "limit": 7, "random_limit": True, "lifetimes": (None, 3), "absorb": True, "wins": True}
# Rollouts of 6 steps end amid episodes of up to 7 steps, which end by a time limit.
ON_POLICY = {
    PPO: {"n_steps": 6, "batch_size": 6, "n_epochs": 2},
    A2C: {"n_steps": 6},
    MaskablePPO: {"n_steps": 6, "batch_size": 6, "n_epochs": 2},
    RecurrentPPO: {"n_steps": 6, "batch_size": 6, "n_epochs": 2, "policy": "MlpLstmPolicy"},
}
SMALL = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu"}


def venv(n=3, **options):
    return dm2.vectorize(lambda: TinyEnv(**{**OPTIONS, **options}), n)


def demonstrations(episodes=8, **options):
    env = TinyEnv(**{**OPTIONS, **options})
    rng = np.random.default_rng(0)
    return dm2.Demonstrations.record(
        env, lambda observations: {a: int(rng.integers(3)) for a in observations}, episodes, seed=5
    )


def matcher(**options):
    return dm2.DistributionMatcher(demonstrations(), updates=2, batch_size=8, seed=0, **options)


def weights(team):
    return {a: {n: p.clone() for n, p in m.policy.state_dict().items()} for a, m in team.models.items()}


def assert_equal_weights(first, second):
    for agent, parameters in first.items():
        for name, value in parameters.items():
            assert torch.equal(value, second[agent][name]), (agent, name)


def train(algorithm, steps=54, seed=3, **options):
    kwargs = {**SMALL, **ON_POLICY.get(algorithm, {}), **options}
    team = IndependentLearners(algorithm, venv(), seed=seed, **kwargs)
    return team.learn(steps)
