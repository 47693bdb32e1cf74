"""A matcher of two agents on small random experts, rollouts for it, and equality of states."""

from __future__ import annotations

import numpy as np
import torch

from dm2_wrappers.matching.matcher import DistributionMatcher

AGENTS, SIZES = ("a", "b"), (3, 2)


class Experts:
    """What a matcher needs of demonstrations: agent k's observations around k + 1."""

    def __init__(self, agents=AGENTS, sizes=SIZES, rows=(40, 30), episodes=5):
        self.agents, self.sizes, self._episodes = agents, sizes, episodes
        self._observations = {
            agent: (np.random.default_rng(k).normal(k + 1, 0.3, (n, size))).astype(np.float32)
            for k, (agent, size, n) in enumerate(zip(agents, sizes, rows, strict=True))
        }

    def __len__(self):
        return self._episodes

    def observations(self, agent):
        return self._observations[agent]


def rollout(steps=10, copies=2, seed=0, dead=0.3):
    """Observations [T, N, K, D] around -1, padded with 0, and who was alive."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(-1, 0.3, (steps, copies, 2, 3)).astype(np.float32)
    observations[..., 1, 2:] = 0
    return observations, rng.random((steps, copies, 2)) >= dead


def make(**options):
    return DistributionMatcher(Experts(), **{"updates": 3, "batch_size": 16, "buffer_size": 100, "seed": 0, **options})


def same(one, other):
    """Whether two states are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
