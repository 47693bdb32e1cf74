"""Can your discriminators see? The same grid on two scales, with and without standardized observations.

    python examples/grid.py            # a table: what a discriminator pays by distance to the goal
    python examples/grid.py --learn    # and what a team learns from it, with standardize=True and without

Three agents on a grid of 7 x 7 cells have a random goal each. The team is paid 1 when all of them are at their goals at
once, which random agents hardly ever are. The experts walk straight to their goals and wait there. Observations are in
[0, 1], as most users scale them. The gradient penalty holds the slope of a discriminator's logit near 1 per unit, so
within [0, 1] it pays nearly the same everywhere. ``standardize=True`` measures features by the experts' own spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import tyro
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv
from stable_baselines3 import PPO

import dm2_wrappers as dm2

MOVES = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
AGENTS = ("red", "green", "blue")


class Grid(ParallelEnv):
    """Each agent sees its own place and its own goal: x, y, goal's x, goal's y, each in [0, ``scale``].

    Args:
        scale: The largest number in an observation.
        cells: In a row and in a column.
        limit: Steps after which an episode is truncated.
    """

    metadata: ClassVar = {"name": "grid"}
    possible_agents: ClassVar = list(AGENTS)
    render_mode = None

    def __init__(self, scale: float = 1.0, cells: int = 7, limit: int = 30) -> None:
        self.scale, self.cells, self.limit = scale, cells, limit
        self.rng = np.random.default_rng()
        self.observation_spaces: dict[str, spaces.Space] = {
            agent: spaces.Box(0, scale, (4,), np.float32) for agent in AGENTS
        }
        self.action_spaces: dict[str, spaces.Space] = {agent: spaces.Discrete(len(MOVES)) for agent in AGENTS}

    def observation_space(self, agent: str) -> spaces.Space:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents, self.t = list(AGENTS), 0
        self.places, self.goals = self.rng.integers(self.cells, size=(2, len(AGENTS), 2))
        return self._observe(), {agent: {} for agent in AGENTS}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        moves = MOVES[[int(actions[agent]) for agent in AGENTS]]
        self.places, self.t = (self.places + moves).clip(0, self.cells - 1), self.t + 1
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
        joint = np.concatenate([self.places, self.goals], axis=1) * (self.scale / (self.cells - 1))
        return dict(zip(AGENTS, joint.astype(np.float32), strict=True))


def expert(observations: dict[str, NDArray[np.float32]]) -> dict[str, int]:
    """Walk along x, then along y, then wait."""
    moves = {tuple(move): number for number, move in enumerate(MOVES.tolist())}
    actions = {}
    for agent, (x, y, goal_x, goal_y) in observations.items():
        right, up = int(np.sign(goal_x - x)), int(np.sign(goal_y - y))
        actions[agent] = moves[(right, 0) if right else (0, up)]
    return actions


def random_rollout(rng: np.random.Generator, scale: float, cells: int, steps: int = 32, episodes: int = 64) -> NDArray[Any]:
    """What random agents see, [T, N, K, 4]."""
    places, goals = rng.integers(cells, size=(2, episodes, len(AGENTS), 2))
    rows = []
    for _ in range(steps):
        rows.append(np.concatenate([places, goals], axis=-1))
        places = (places + MOVES[rng.integers(len(MOVES), size=places.shape[:2])]).clip(0, cells - 1)
    return (np.stack(rows) * (scale / (cells - 1))).astype(np.float32)


def reward_by_distance(
    scale: float = 1.0, *, cells: int = 7, updates: int = 25, seed: int = 0, **options: Any
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """What the first agent's discriminator pays after updates against random agents.

    Args:
        scale: The largest number in an observation.
        cells: Of the grid.
        updates: Of the discriminators, each after 2,048 random joint steps.
        seed: Of everything.
        **options: For `dm2.DistributionMatcher`.

    Returns:
        The mean r_gail over all states at distance 0, 1, 2, ... to the goal, and the metrics of the last update.
    """
    demos = dm2.Demonstrations.record(Grid(scale, cells), expert, 200, seed=seed)
    matcher = dm2.DistributionMatcher(demos, seed=seed, **options)
    rng = np.random.default_rng(seed)
    for _ in range(updates):
        seen = random_rollout(rng, scale, cells)
        matcher.record(seen, np.ones(seen.shape[:3], dtype=bool))
        metrics = matcher.update()
    states = np.stack(np.meshgrid(*[np.arange(cells)] * 4, indexing="ij"), axis=-1).reshape(-1, 1, 4)
    distance = np.abs(states[:, 0, :2] - states[:, 0, 2:]).sum(axis=1)
    seen = (np.repeat(states, len(AGENTS), axis=1) * (scale / (cells - 1))).astype(np.float32)
    paid = matcher.rewards(seen)[:, 0]
    return np.bincount(distance, weights=paid) / np.bincount(distance), metrics


def team_on(cells: int, limit: int, *, seed: int = 0, **options: Any) -> dm2.sb3.IndependentLearners:
    """Three PPO learners with DM2, on observations in [0, 1]."""
    demos = dm2.Demonstrations.record(Grid(cells=cells, limit=limit), expert, 200, seed=seed)
    return dm2.sb3.IndependentLearners(
        PPO,
        dm2.vectorize(lambda: Grid(cells=cells, limit=limit), 32),
        matcher=dm2.DistributionMatcher(demos, batch_size=128, seed=seed, **options),
        coefficient=1.0,
        seed=seed,
        n_steps=24,
        batch_size=192,
        n_epochs=8,
        learning_rate=3e-3,
        ent_coef=0.005,
        gamma=0.9,
        device="cpu",
    )


def final_distance(team: dm2.sb3.IndependentLearners, cells: int, limit: int, episodes: int = 50, *, seed: int = 0) -> float:
    """Cells between an agent and its goal when an episode ends, on average."""
    torch.manual_seed(seed)  # of the sampled actions
    env, found = Grid(cells=cells, limit=limit), []
    for episode in range(episodes):
        observations, _ = env.reset(seed=episode)
        while env.agents:
            observations = env.step(team.predict(observations))[0]
        found.append(np.abs(env.places - env.goals).sum(axis=1).mean())
    return float(np.mean(found))


@dataclass
class Args:
    learn: bool = False
    """train two teams, too"""
    cells: int = 5
    """of the grid on which they learn"""
    limit: int = 12
    """steps of an episode there"""
    steps: int = 20_000
    """environment steps of each team"""
    seed: int = 0
    """of everything"""


def main(args: Args) -> None:
    """Print the table, and the teams' results."""
    print(f"{'observations':32}{'at goal':>9}{'4 away':>9}{'8 away':>9}{'separation':>12}")
    for name, scale, options in (
        ("[0, 1]", 1, {}),
        ("[0, 1], gradient_penalty=1", 1, {"gradient_penalty": 1.0}),
        ("[0, 1], gradient_penalty=0.1", 1, {"gradient_penalty": 0.1}),
        ("[0, 1], gradient_penalty=0", 1, {"gradient_penalty": 0.0}),
        ("[0, 6]", 6, {}),
        ("[0, 1], standardize=True", 1, {"standardize": True}),
        ("the same, gradient_penalty=10", 1, {"standardize": True, "gradient_penalty": 10.0}),
    ):
        paid, metrics = reward_by_distance(scale, seed=args.seed, **options)
        numbers = "".join(f"{paid[distance]:9.2f}" for distance in (0, 4, 8))
        print(f"{name:32}{numbers}{metrics[f'separation/{AGENTS[0]}']:12.2f}", flush=True)
    if args.learn:
        for standardize in (True, False):
            team = team_on(args.cells, args.limit, seed=args.seed, standardize=standardize)
            before = final_distance(team, args.cells, args.limit, seed=args.seed)
            after = final_distance(team.learn(args.steps), args.cells, args.limit, seed=args.seed)
            steps = f"{team.num_timesteps:,} steps"
            print(f"standardize={standardize}: {before:.2f} cells off the goals, {after:.2f} after {steps}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
