"""CPU time of a discriminator update per agent, for K = 3 to 27 agents.

    python benchmarks/cost_per_agent.py [--agents 3 5 9 14 27] [--features 140]

One minibatch of the default size: 256 transitions per side and agent. The sizes take turns, and the table has the smallest
time of these turns, because other load on the machine only adds to it.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

import torch

from dm2_wrappers.matching.discriminators import Discriminators


def updates(agents: int, features: int, batch: int) -> Callable[[int], float]:
    """A function that makes so many updates and returns the mean milliseconds of one."""
    discriminators = Discriminators([features] * agents, seed=0)
    shape = (agents, batch, features)
    expert, policy, alpha = torch.randn(shape), torch.randn(shape) + 0.2, torch.rand(shape[:2])

    def run(count: int) -> float:
        start = time.process_time()
        for _ in range(count):
            discriminators.update(expert, policy, alpha)
        return (time.process_time() - start) / count * 1e3

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[3, 5, 9, 14, 27])
    parser.add_argument("--features", type=int, default=140)
    parser.add_argument("--batch", type=int, default=256, help="transitions per side and agent")
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}, one thread; {args.features} features, "
        f"{args.batch} transitions per side\n"
    )
    print("| agents | one update | per agent | relative to the first |\n|---|---|---|---|")
    torch.manual_seed(0)
    runs = {agents: updates(agents, args.features, args.batch) for agents in args.agents}
    for run in runs.values():
        run(2)  # warm up
    times = [[run(3) for run in runs.values()] for _ in range(args.turns)]
    best = [min(column) for column in zip(*times, strict=True)]
    for agents, milliseconds in zip(runs, best, strict=True):
        relative = milliseconds / agents / (best[0] / args.agents[0])
        print(f"| {agents} | {milliseconds:.1f} ms | {milliseconds / agents:.2f} ms | {relative:.2f} |")


if __name__ == "__main__":
    main()
