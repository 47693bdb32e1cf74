"""DM2 on environments of other packages, each with scripted experts; prints what the team learned from them.

    python examples/environments.py --env spread
    python examples/environments.py --env all              # those whose packages are installed

The environment's own reward is never paid (env_coefficient=0), so whatever the team learns, it learned from the experts'
observations. The last column is how far the team came from a random team's return (0%) to the experts' (100%).
"""

from __future__ import annotations

import importlib.metadata
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from _environments import ENVIRONMENTS, Environment
from packaging.requirements import Requirement
from stable_baselines3 import PPO

import dm2_wrappers as dm2


@dataclass
class Args:
    env: str = "spread"
    """an environment of `_environments.py`, such as spread, cartpole or pistonball; all: those that are installed"""
    steps: int | None = None
    """joint environment steps of training; by default the environment's own number"""
    seed: int = 0
    """of networks, actions, environment and discriminators"""


def random_team(env: dm2.MultiAgentVectorEnv, seed: int) -> Any:
    """A joint policy that draws any available action."""
    rng = np.random.default_rng(seed)

    def policy(observations: np.ndarray, infos: dict[str, Any]) -> np.ndarray:
        if env.discrete:
            return np.where(infos["action_mask"], rng.random(infos["action_mask"].shape), -1).argmax(axis=-1)
        boxes = env.action_spaces.values()
        width = max(box.shape[0] for box in boxes)
        rows = [[np.resize(rng.uniform(box.low, box.high), width) for box in boxes] for _ in observations]
        return np.array(rows, np.float32)

    return policy


def train(environment: Environment, demos: dm2.Demonstrations, steps: int, seed: int) -> dm2.sb3.IndependentLearners:
    """One PPO for each agent, paid r_gail alone."""
    options = {"n_steps": 32, "batch_size": 128, "n_epochs": 8, "learning_rate": 3e-3, "gamma": 0.9, "ent_coef": 0.01}
    team = dm2.sb3.IndependentLearners(
        PPO,
        dm2.vectorize(environment.make, environment.num_envs),
        matcher=dm2.DistributionMatcher(demos, seed=seed, **environment.matcher),
        coefficient=1.0,
        env_coefficient=0.0,
        seed=seed,
        device="cpu",
        **{**options, **environment.learner},
    )
    return team.learn(steps)


def run(name: str, steps: int | None = None, seed: int = 0) -> float:
    """Record the experts, train, and print a row of the table; returns the share of the way from random to experts."""
    environment = ENVIRONMENTS[name]
    steps, start = steps or environment.steps, time.process_time()
    single = environment.make()
    demos = dm2.Demonstrations.record(single, environment.experts(single), environment.demonstrations, seed=seed + 1)
    team = train(environment, demos, steps, seed)
    venv = team.env
    random = dm2.evaluate(random_team(venv, seed), venv, environment.evaluation_episodes, seed=seed + 10_000)
    trained = team.evaluate(venv, environment.evaluation_episodes, seed=seed + 10_000)
    share = (trained["return"] - random["return"]) / (demos.mean_return - random["return"])
    shape, spent = f"{len(demos.agents)} x {max(demos.sizes)}", time.process_time() - start
    means = f"{random['return']:9.2f} {demos.mean_return:9.2f} {trained['return']:9.2f} +- {trained['return_se']:<6.2f}"
    print(f"{name:<18} {shape:<9} {means} {steps:>8,} {spent:6.0f} s {share:6.0%}", flush=True)
    return float(share)


def installed(environment: Environment) -> bool:
    """Whether its packages are there, with what their extras need."""
    try:
        for package in map(Requirement, environment.packages):
            importlib.metadata.version(package.name)
            for needed in map(Requirement, importlib.metadata.requires(package.name) or ()):
                if needed.marker and any(needed.marker.evaluate({"extra": extra}) for extra in package.extras):
                    importlib.metadata.version(needed.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main(args: Args) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    names = [name for name, each in ENVIRONMENTS.items() if installed(each)] if args.env == "all" else [args.env]
    if unknown := set(names) - set(ENVIRONMENTS):
        raise SystemExit(f"--env must be all or one of {', '.join(ENVIRONMENTS)}, got {', '.join(unknown)}")
    print(
        f"{'environment':<18} {'K x D':9} {'random':>9} {'experts':>9} {'DM2':>9} {'':9} {'steps':>8} {'CPU':>8} {'way':>6}"
    )
    for name in names:
        run(name, args.steps, args.seed)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
