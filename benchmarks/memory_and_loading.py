"""Memory of a training run with the paper's discriminators on SMAX, and the time to load 1,000 episodes.

    python benchmarks/memory_and_loading.py [--scenario 5m_vs_6m] [--num-envs 64]

Memory is this process's largest resident size so far: after the imports, after the environment's first step, and after the
team's rollouts. A rollout has at least 256 episodes per update, as in the paper.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import torch
from sb3_contrib import MaskablePPO

import dm2_wrappers as dm2


def peak_gib() -> float:
    """The largest resident size of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="5m_vs_6m")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--n-steps", type=int, default=140, help="steps of each sub-environment per rollout")
    parser.add_argument("--rollouts", type=int, default=2)
    parser.add_argument("--demos", default="demos_data/smax_{scenario}_win30.npz")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, torch {torch.__version__}\n")

    path = Path(args.demos.format(scenario=args.scenario))
    seconds = []
    for _ in range(5):
        start = time.process_time()
        demos = dm2.Demonstrations.load(path)
        seconds.append(time.process_time() - start)
    size = path.stat().st_size / 2**20
    print(f"loading {len(demos):,} episodes ({size:.1f} MiB) takes {min(seconds):.2f} s of CPU time, the smallest of five\n")
    print("| after | largest resident size |\n|---|---|")
    print(f"| imports and demonstrations | {peak_gib():.2f} GiB |", flush=True)
    venv = dm2.envs.smax.vector_env(args.scenario, args.num_envs)
    _, infos = venv.reset(seed=0)
    venv.step(infos["action_mask"].argmax(-1))
    print(f"| the first environment step | {peak_gib():.2f} GiB |", flush=True)
    team = dm2.sb3.IndependentLearners(
        MaskablePPO,
        venv,
        matcher=dm2.DistributionMatcher.paper(demos, args.scenario, seed=0, max_steps=venv.max_steps),
        coefficient=0.3,
        seed=0,
        n_steps=args.n_steps,
        batch_size=args.n_steps * args.num_envs // 4,
        n_epochs=4,
        device="cpu",
    )
    steps = args.n_steps * args.num_envs
    for number in range(1, args.rollouts + 1):
        team.learn(steps, reset_num_timesteps=False)
        print(f"| rollout {number} of {steps:,} steps, with its update | {peak_gib():.2f} GiB |", flush=True)


if __name__ == "__main__":
    main()
