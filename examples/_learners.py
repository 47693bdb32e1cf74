"""What the one-file examples of other learners share: an environment with experts, an evaluation, and a table.

Each of these examples has a function ``train(make_env, make_matcher, *, coefficient, env_coefficient, steps, seed)``, which
trains a team and returns ``policy({agent: observation}) -> {agent: action}``. `dm2.testing.check_dm2_learner` takes it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _runs
import numpy as np
import torch
import tyro
import wrap_any_env
from mpe2 import simple_spread_v3

import dm2_wrappers as dm2
from dm2_wrappers import _checks
from dm2_wrappers.vector.layout import Layout

Policy = Callable[[Mapping[str, Any]], dict[str, Any]]
Train = Callable[..., Policy]
DEMOS = Path(__file__).parent.parent / "demos_data"


@dataclass
class Args:
    env: str = "mpe"
    """mpe: simple_spread of MPE, with scripted experts; smax:3m and others: SMAX, with the experts of demos_data/"""
    coefficient: float = 1.0
    """the paper's c; 0: the environment's reward alone"""
    env_coefficient: float = 1.0
    """factor on the environment's reward; 0: r_gail alone"""
    steps: int = 50_000
    """joint environment steps of training, summed over sub-environments"""
    seed: int = 0
    """of networks, actions, environment and discriminators"""
    demonstrations: int = 100
    """episodes of the scripted experts of MPE"""
    evaluation_episodes: int = 50
    """episodes behind each number of the final table"""


def main(train: Train, description: str | None) -> None:
    """The example as a program."""
    run(train, tyro.cli(Args, description=description))


def run(train: Train, args: Args) -> dict[str, float]:
    """Train on the environment that was asked for, then print how the team does.

    Returns:
        Mean environment returns of a random team and of the trained one.
    """
    _runs.check_counts(**{name: getattr(args, name) for name in ("steps", "demonstrations", "evaluation_episodes")})
    with _runs.one_sentence(ValueError):
        for name in ("coefficient", "env_coefficient"):
            _checks.number(name, getattr(args, name), least=0)
    torch.set_num_threads(1)
    make_env, demos = environment(args)
    print(f"{len(demos)} demonstrated episodes, mean return {demos.mean_return:.2f}")
    start = time.time()
    team = train(
        make_env,
        lambda: dm2.DistributionMatcher(demos, seed=args.seed),
        coefficient=args.coefficient,
        env_coefficient=args.env_coefficient,
        steps=args.steps,
        seed=args.seed,
    )
    print(f"trained for {args.steps:,} steps in {time.time() - start:.0f} s")
    env, rng = make_env(), np.random.default_rng(args.seed)

    def random_team(observations: Mapping[str, Any]) -> dict[str, int]:
        return {agent: int(rng.choice(np.flatnonzero(mask(env, agent, seen)))) for agent, seen in observations.items()}

    print(f"\n{'mean environment return':<40} {args.evaluation_episodes} episodes each")
    means = {}
    for name, policy in {"random": random_team, f"trained, c = {args.coefficient:g}": team}.items():
        mean, error = wrap_any_env.mean_return(env, policy, args.evaluation_episodes, seed=args.seed + 10_000)
        print(f"{name:<40} {mean:8.2f} +- {error:.2f}")
        means[name.partition(",")[0]] = mean
    return means


def environment(args: Args) -> tuple[Callable[[], Any], dm2.Demonstrations]:
    """A function that makes the environment, and its experts' demonstrations."""
    kind, _, scenario = args.env.partition(":")
    if kind == "smax" and scenario:
        demos = dm2.Demonstrations.load(DEMOS / f"smax_{scenario}_win50.npz")
        return lambda: dm2.envs.smax.parallel_env(scenario), demos
    if args.env != "mpe":
        raise SystemExit(f"--env must be mpe or smax:SCENARIO, e.g. smax:3m, got {args.env!r}")

    def make_env() -> Any:
        return simple_spread_v3.parallel_env(N=3, max_cycles=25)

    return make_env, dm2.Demonstrations.record(make_env(), wrap_any_env.expert, args.demonstrations, seed=args.seed + 1)


def mask(env: Any, agent: str, observation: Any) -> np.ndarray:
    """The agent's available actions; all where the environment has no masks."""
    masked = isinstance(observation, Mapping) and "action_mask" in observation
    return observation["action_mask"] if masked else np.ones(env.action_space(agent).n)


def dict_policy(layout: Layout, act: Callable[[np.ndarray, np.ndarray], Any]) -> Policy:
    """``policy({agent: observation}) -> {agent: action}`` of one that acts on arrays.

    Args:
        layout: How the environment's dicts map to arrays; ``Layout(env)``, or the ``layout`` of what `dm2.vectorize` made.
        act: Actions [1, K] of observations [1, K, D] and action masks [1, K, A].
    """

    def policy(observations: Mapping[str, Any]) -> dict[str, Any]:
        actions = np.asarray(act(*layout.joint_arrays(observations)))[0]
        of_all = {agent: layout.native_action(k, actions[k]) for k, agent in enumerate(layout.agents)}
        return {agent: of_all[agent] for agent in observations}

    return policy
