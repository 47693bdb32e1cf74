"""`IndependentLearners` on SMAX in one process and with worker processes: environment steps per second, and equal weights.

    python benchmarks/team_workers.py [--scenario 5m_vs_6m] [--num-envs 64] [--workers 1 2 4]

Independent PPO and DM2 with the settings of examples/ippo_sb3.py. Torch and XLA use one thread in each process. The teams
take turns for several rounds; the table shows medians, and ratios within the rounds. In the end all teams must have the same
weights, bit for bit. All cores must be free, because the processes wait for each other at each step.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import time

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sb3_contrib import MaskablePPO

import dm2_wrappers as dm2


def make_team(venv, matcher: dm2.DistributionMatcher | None, workers: int) -> dm2.sb3.IndependentLearners:
    return dm2.sb3.IndependentLearners(
        MaskablePPO,
        venv,
        matcher=matcher,
        coefficient=None if matcher is None else 0.3,
        seed=0,
        workers=workers,
        n_steps=64,
        batch_size=64 * venv.num_envs // 4,
        n_epochs=4,
        learning_rate=1e-3,
        ent_coef=0.01,
        max_grad_norm=10.0,
        policy_kwargs={"activation_fn": torch.nn.ReLU},
        device="cpu",
    )


def equal_weights(first, second) -> bool:
    pairs = [(first.models[agent].policy.state_dict(), second.models[agent].policy.state_dict()) for agent in first.agents]
    return all(torch.equal(ours[name], theirs[name]) for ours, theirs in pairs for name in ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="5m_vs_6m")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--learners", choices=["IPPO", "DM2"], nargs="+", default=["IPPO", "DM2"])
    parser.add_argument("--demos", default="demos_data/smax_{scenario}_win30.npz")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rollouts", type=int, default=3, help="rollouts of 64 steps in each round")
    args = parser.parse_args()
    torch.set_num_threads(1)

    demos = dm2.Demonstrations.load(args.demos.format(scenario=args.scenario))
    # Compiled once for all teams, each of which begins new episodes when it is its turn.
    venv = dm2.envs.smax.vector_env(args.scenario, args.num_envs)
    counts, steps = [0, *args.workers], args.rollouts * 64 * args.num_envs
    rows = []
    for name in args.learners:
        teams = {}
        for workers in counts:
            matcher = dm2.DistributionMatcher(demos, seed=0) if name == "DM2" else None
            teams[workers] = make_team(venv, matcher, workers).learn(steps)  # compile, start the workers, fill the buffers
        speeds: dict[int, list[float]] = {workers: [] for workers in counts}
        for _ in range(args.rounds):
            for workers, team in teams.items():
                team.restart_episodes()
                start = time.perf_counter()
                team.learn(steps, reset_num_timesteps=False)
                speeds[workers].append(steps / (time.perf_counter() - start))
        for workers, team in teams.items():
            ratios = np.array(speeds[workers]) / np.array(speeds[0])
            equal = "yes" if equal_weights(teams[0], team) else "NO"
            shown = f"{np.median(ratios):.2f} ({ratios.min():.2f} - {ratios.max():.2f})"
            rows.append(f"| {name} | {workers} | {np.median(speeds[workers]):,.0f} | {shown} | {equal} |")
            team.close()

    packages = ("torch", "stable-baselines3", "jax")
    versions = [f"Python {platform.python_version()}", *(f"{name} {importlib.metadata.version(name)}" for name in packages)]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {', '.join(versions)}")
    print(f"{args.scenario}, {args.num_envs} sub-environments, {args.rounds} rounds of {steps:,} steps\n")
    print("| learners | workers | environment steps/s (median) | times one process (median, range) | same weights |")
    print("|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()
