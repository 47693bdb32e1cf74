"""Environment steps per second of DM2 on RLlib with 0, 1 and 2 env runners, on SMAX.

    python benchmarks/rllib_runners.py [--scenario 5m_vs_6m] [--runners 0 1 2]

The settings are those of examples/ippo_rllib.py. With 0 env runners the driver plays; otherwise processes play, and
they wait while the driver trains. The first rollout of each, in which SMAX compiles, is not timed.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

# For the env runners' processes, which inherit it.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import ippo_rllib
import numpy as np
import ray
import torch

import dm2_wrappers as dm2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="5m_vs_6m")
    parser.add_argument("--demos", default="demos_data/smax_{scenario}_win30.npz")
    parser.add_argument("--runners", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num-envs", type=int, default=32, help="sub-environments, split over the env runners")
    parser.add_argument("--rollout", type=int, default=2048, help="environment steps per rollout")
    parser.add_argument("--rollouts", type=int, default=3, help="rollouts that are timed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    demos = dm2.Demonstrations.load(args.demos.format(scenario=args.scenario))
    ippo_rllib.start_ray(processes=max(args.runners))

    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, ray {ray.__version__}, {args.scenario}, {args.num_envs} sub-environments, "
        f"rollouts of {args.rollout} steps; load {os.getloadavg()[0]:.1f} at the start\n",
        flush=True,
    )
    print("| env runners | steps/s (median) | range | relative to the first |\n|---|---|---|---|")
    first = None
    for runners in args.runners:
        learner = ippo_rllib.LearnerArgs(num_envs=args.num_envs // max(1, runners), batch_size=args.rollout)
        matching = {"make_matcher": lambda: dm2.DistributionMatcher(demos, seed=0), "coefficient": 0.3}
        config = ippo_rllib.make_config(learner, f"smax:{args.scenario}", seed=0, matching=matching)
        algorithm = config.env_runners(num_env_runners=runners).build_algo()
        algorithm.train()
        speeds = []
        for _ in range(args.rollouts):
            before, start = ippo_rllib.steps_played(algorithm), time.perf_counter()
            algorithm.train()
            speeds.append((ippo_rllib.steps_played(algorithm) - before) / (time.perf_counter() - start))
        algorithm.stop()
        median = float(np.median(speeds))
        first = first or median
        ratio = median / first
        print(f"| {runners} | {median:,.0f} | {min(speeds):,.0f} - {max(speeds):,.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
