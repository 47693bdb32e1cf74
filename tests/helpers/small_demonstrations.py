"""Small demonstrations whose every number is known."""

from __future__ import annotations

import numpy as np

from dm2_wrappers import Demonstrations


def make(lengths=(2, 3, 4), sizes=(3, 2), won=(1, 0, 1), env_id="tiny", seed=0) -> Demonstrations:
    """Demonstrations whose feature 0 is ``100 * agent + episode``; agent 1 is dead in each episode's last step."""
    rng, k, s = np.random.default_rng(seed), len(sizes), sum(lengths)
    observations = rng.random((s, k, max(sizes)), dtype=np.float32)
    observations[:, :, 0] = np.repeat(np.arange(len(lengths)), lengths)[:, None] + 100 * np.arange(k)
    alive = np.ones((s, k), bool)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if k > 1:
        alive[offsets[1:] - 1, 1] = False
    for agent, size in enumerate(sizes):
        observations[:, agent, size:] = 0
    observations *= alive[..., None]
    return Demonstrations(
        agents=tuple(f"agent_{agent}" for agent in range(k)),
        sizes=tuple(sizes),
        padded_observations=observations,
        alive=alive,
        actions=rng.integers(0, 3, (s, k)),
        rewards=np.ones((s, k), np.float32),
        offsets=np.tile(offsets, (k, 1)),
        won=np.tile(np.array(won, np.int8), (k, 1)),
        metadata={"env_id": env_id, "style": "concurrent", "policy": {"algorithm": "IPPO"}, "seed": seed},
    )
