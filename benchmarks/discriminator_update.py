"""Milliseconds per minibatch: stacked discriminators with the closed-form penalty against a plain loop over agents.

The plain loop follows the definition of the loss: one network per agent, autograd's double backward for the gradient
penalty, one Adam each. At the paper's size it also runs as the paper's code does, on episodes padded to the time limit.
Compare the ratios only: the times depend on the machine.
Run: ``python benchmarks/discriminator_update.py [--agents 5 --size 140 --threads 1]``
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dm2_wrappers.matching.discriminators import Discriminators


def plain_loop(agents: int, size: int) -> Callable[[Tensor, Tensor, Tensor], None]:
    """One step for all agents, one after the other."""
    networks = [
        nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)) for _ in range(agents)
    ]
    adams = [torch.optim.Adam(network.parameters(), lr=1e-3) for network in networks]

    def update(expert: Tensor, policy: Tensor, alpha: Tensor) -> None:
        for k, (network, adam) in enumerate(zip(networks, adams, strict=True)):
            between = torch.lerp(policy[k], expert[k], alpha[k, :, None]).requires_grad_()
            (slope,) = torch.autograd.grad(network(between).sum(), between, create_graph=True)
            penalty = 10 * (slope.norm(dim=1) - 1).square().mean()
            loss = F.softplus(-network(expert[k])).mean() + F.softplus(network(policy[k])).mean() + penalty
            adam.zero_grad()
            loss.backward()
            adam.step()

    return update


def milliseconds(update: Callable[[Tensor, Tensor, Tensor], object], data: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Mean time of an update over the minibatches."""
    start = time.perf_counter()
    for minibatch in data:
        update(*minibatch)
    return (time.perf_counter() - start) / len(data) * 1e3


def matrix_rate() -> float:
    """Multiplications and additions per second of a large matrix product on this machine."""
    a, b, out = torch.randn(1536, 1536), torch.randn(1536, 1536), torch.empty(1536, 1536)
    torch.mm(a, b, out=out)
    start = time.perf_counter()
    for _ in range(10):
        torch.mm(a, b, out=out)
    return 10 * 2 * 1536**3 / (time.perf_counter() - start)


def products(agents: int, size: int, batch: int) -> float:
    """Multiplications and additions in the matrix products of one closed-form update with two layers of 64."""
    per_row = 4 * size * 64 + 14 * 64 * 64  # W1 twice on two sides; 64 x 64 products on 14 blocks of rows
    return 2.0 * agents * batch * per_row


def compare(args: argparse.Namespace, name: str, batch: int, slow_batch: int) -> tuple[float, float, float]:
    """Print and return the ratio of the loop's time to the stacked networks' time, and both in milliseconds."""
    torch.manual_seed(0)

    def data(rows: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        shape = (args.agents, rows, args.size)
        return [(torch.randn(shape), torch.randn(shape) + 0.2, torch.rand(shape[:2])) for _ in range(args.minibatches)]

    of_stacked, of_loop = data(batch), data(slow_batch)
    stacked, plain = Discriminators([args.size] * args.agents, seed=0).update, plain_loop(args.agents, args.size)
    for update, some in ((stacked, of_stacked), (plain, of_loop)):
        milliseconds(update, some[:3])  # warm up
    # Alternating, so that other load on the machine affects both equally; the median of the repeats is reported.
    times = [(milliseconds(stacked, of_stacked), milliseconds(plain, of_loop)) for _ in range(args.repeats)]
    fast, slow = (sorted(column)[len(column) // 2] for column in zip(*times, strict=True))
    print(f"{name:<58} {slow:8.2f} ms  {fast:8.2f} ms  {slow / fast:5.1f} x")
    return slow / fast, slow, fast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--size", type=int, default=140, help="observation features")
    parser.add_argument("--batch", type=int, default=256, help="transitions per side and agent of the default matcher")
    parser.add_argument("--episodes", type=int, default=64, help="episodes per side in a minibatch of the paper")
    parser.add_argument("--live", type=int, default=30, help="an agent's live steps per episode")
    parser.add_argument("--limit", type=int, default=71, help="steps per episode with padding")
    parser.add_argument("--minibatches", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    live, padded = args.episodes * args.live, args.episodes * args.limit
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, {args.threads} thread(s), torch {torch.__version__}")
    print(f"{args.agents} agents, {args.size} features; per minibatch, median of {args.repeats}")
    print(f"{'':<58} {'loop':>8}     {'stacked':>8}     ratio")
    compare(args, f"paper's size: loop on {padded} padded rows, stacked on {live} live", live, padded)
    _, _, fast = compare(args, f"paper's size: both on {live} live transitions per side", live, live)
    compare(args, f"default size: both on {args.batch} transitions per side", args.batch, args.batch)
    rate = matrix_rate()
    share = products(args.agents, args.size, live) / (fast / 1e3) / rate
    print(f"matrix products at the paper's size run at {share:.0%} of this machine's rate ({rate / 1e9:.0f} GFLOP/s)")


if __name__ == "__main__":
    main()
