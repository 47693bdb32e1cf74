"""Milliseconds per minibatch: stacked discriminators with the closed-form penalty against a plain loop over agents.

The plain loop follows the definition of the loss: one network per agent, autograd's double backward for the gradient
penalty, one Adam each. Both train on the same data. Compare the ratio only: the times depend on the machine.
Run: ``python benchmarks/discriminator_update.py [--agents 5 --size 140 --batch 256 --threads 1]``
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--size", type=int, default=140, help="observation features")
    parser.add_argument("--batch", type=int, default=256, help="transitions per side and agent")
    parser.add_argument("--minibatches", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shape = (args.agents, args.batch, args.size)
    data = [(torch.randn(shape), torch.randn(shape) + 0.2, torch.rand(shape[:2])) for _ in range(args.minibatches)]
    stacked, plain = Discriminators([args.size] * args.agents, seed=0).update, plain_loop(args.agents, args.size)
    for update in (stacked, plain):
        milliseconds(update, data[:3])  # warm up
    # Alternating, so that other load on the machine affects both equally; the median of the repeats is reported.
    times = [(milliseconds(stacked, data), milliseconds(plain, data)) for _ in range(args.repeats)]
    fast, slow = (sorted(column)[len(column) // 2] for column in zip(*times, strict=True))

    print(f"{platform.machine()}, {os.cpu_count()} CPUs, {args.threads} thread(s), torch {torch.__version__}")
    print(f"{args.agents} agents, {args.size} features, {args.batch} transitions per side; median of {args.repeats}")
    print(f"stacked, closed form:         {fast:8.2f} ms per minibatch")
    print(f"loop over agents, autograd:   {slow:8.2f} ms per minibatch")
    print(f"ratio:                        {slow / fast:8.1f}")


if __name__ == "__main__":
    main()
