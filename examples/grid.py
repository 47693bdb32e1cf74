"""Does a discriminator see your observations? The same grid on several scales, with and without standardization.

    python examples/grid.py              # a table: what discriminators pay by distance to the goal; half a minute
    python examples/grid.py --learn      # and what a team learns from it, with standardize=True and without

Three agents on a grid of 7 x 7 cells have a random goal each. The team is paid 1 when all of them are at their goals at
once, which random agents hardly ever are. The experts walk straight to their goals and wait there. Observations are in
[0, 1], as users are told to scale them. The gradient penalty holds the slope of a discriminator's logit near 1 per unit,
so within [0, 1] it pays nearly the same everywhere. ``standardize=True`` measures features by the experts' own spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

import dm2_wrappers as dm2

CELLS = 7
MOVES = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
AGENTS = ("red", "green", "blue")


class Grid(ParallelEnv):
    """Each agent sees its own place and its own goal: x, y, goal's x, goal's y, each in [0, ``scale``].

    Args:
        scale: The largest number in an observation.
        limit: Steps after which an episode is truncated.
    """

    metadata = {"name": "grid"}
    possible_agents = list(AGENTS)
    render_mode = None

    def __init__(self, scale: float = 1.0, limit: int = 30) -> None:
        self.scale, self.limit = scale, limit
        self.rng = np.random.default_rng()

    def observation_space(self, agent: str) -> spaces.Box:
        return spaces.Box(0, self.scale, (4,), np.float32)

    def action_space(self, agent: str) -> spaces.Discrete:
        return spaces.Discrete(len(MOVES))

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents, self.t = list(AGENTS), 0
        self.places, self.goals = self.rng.integers(CELLS, size=(2, len(AGENTS), 2))
        return self._observe(), {agent: {} for agent in AGENTS}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        moves = MOVES[[int(actions[agent]) for agent in AGENTS]]
        self.places, self.t = (self.places + moves).clip(0, CELLS - 1), self.t + 1
        solved = bool((self.places == self.goals).all())
        over = solved or self.t == self.limit
        self.agents = [] if over else self.agents
        return (
            self._observe(),
            dict.fromkeys(AGENTS, float(solved)),
            dict.fromkeys(AGENTS, solved),
            dict.fromkeys(AGENTS, over and not solved),
            {agent: {} for agent in AGENTS},
        )

    def _observe(self) -> dict[str, NDArray[np.float32]]:
        joint = np.concatenate([self.places, self.goals], axis=1) * (self.scale / (CELLS - 1))
        return dict(zip(AGENTS, joint.astype(np.float32), strict=True))


def expert(observations: dict[str, NDArray[np.float32]]) -> dict[str, int]:
    """Walk along x, then along y, then wait."""
    actions = {}
    for agent, (x, y, goal_x, goal_y) in observations.items():
        on_x, on_y = int(np.sign(goal_x - x)), int(np.sign(goal_y - y))
        actions[agent] = int(np.flatnonzero((MOVES == ((on_x, 0) if on_x else (0, on_y))).all(1))[0])
    return actions


def reward_by_distance(
    scale: float = 1.0, *, updates: int = 25, seed: int = 0, **matcher_options: Any
) -> tuple[dict[int, float], float]:
    """Mean r_gail of the first agent by its distance to its goal, after updates against random agents.

    Args:
        scale: Of the observations.
        updates: Of the discriminators, each after 2,048 random joint steps.
        seed: Of everything.
        **matcher_options: For `dm2.DistributionMatcher`.

    Returns:
        ``{distance: mean r_gail over all states at this distance}``, and r_gail's standard deviation over the random
        agents' steps since the last update.
    """
    demos = dm2.Demonstrations.record(Grid(scale), expert, 200, seed=seed)
    matcher = dm2.DistributionMatcher(demos, seed=seed, **matcher_options)
    rng = np.random.default_rng(seed)
    unit = scale / (CELLS - 1)
    places = rng.integers(CELLS, size=(64, len(AGENTS), 2))
    goals = rng.integers(CELLS, size=places.shape)
    for _ in range(updates):
        rows = []
        for t in range(32):
            if t % 32 == 0:
                places, goals = rng.integers(CELLS, size=(2, *places.shape))
            rows.append(np.concatenate([places, goals], axis=-1))
            places = (places + MOVES[rng.integers(len(MOVES), size=places.shape[:2])]).clip(0, CELLS - 1)
        seen = np.stack(rows).astype(np.float32) * np.float32(unit)
        metrics = matcher.record(seen, np.ones(seen.shape[:3], bool)) or matcher.update()
    states = np.stack(np.meshgrid(*[np.arange(CELLS)] * 4, indexing="ij"), -1).reshape(-1, 1, 4)
    paid = matcher.rewards(np.repeat(states, len(AGENTS), 1).astype(np.float32) * np.float32(unit))[:, 0]
    distance = np.abs(states[:, 0, :2] - states[:, 0, 2:]).sum(1)
    return {d: float(paid[distance == d].mean()) for d in range(2 * CELLS - 1)}, metrics[f"gail_reward_std/{AGENTS[0]}"]
