"""The paper's four tiles again, with Stable-Baselines3 learners that only see samples: what four_tiles.py solves exactly.

    python examples/four_tiles_sb3.py

Two agents, one TRPO learner each, learn from r_gail alone: turn by turn (Algorithm 2, each discriminator trained until it
has converged) and all at once (Algorithm 1). Teams match compatible demonstrations, and cannot match the others: since
every agent sees the whole state, no team gets closer than half of what the demonstrations disagree about states. At the
end: a table, also in runs/four_tiles_sb3/table.md. It takes about a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from sb3_contrib import TRPO
from tqdm import tqdm

import dm2_wrappers as dm2
from dm2_wrappers import compatibility, tabular

NUM_ENVS, N_STEPS = 8, 32


@dataclass
class Args:
    rollouts: int = 18
    """rollouts from which each agent learns"""
    episodes: int = 40
    """recorded episodes"""
    demonstrations: tuple[str, ...] = tabular.TILE_TARGETS
    """kinds of demonstrations"""
    orders: tuple[str, ...] = ("turn", "simultaneous")
    """turn: Algorithm 2; simultaneous: Algorithm 1"""
    seed: int = 0
    """seed of recordings and learners"""
    out: Path = Path("runs/four_tiles_sb3")
    """where the table goes"""


def make_env() -> tabular.TabularParallelEnv:
    """The four tiles, where every step ends the game with probability 1 - gamma and begins it anew.

    Time averages of this game are the discounted visits of the original one, which the theory is about.
    """
    game = tabular.four_tiles().game
    transition = game.gamma * game.transition + (1 - game.gamma) * game.start
    return tabular.TabularParallelEnv(tabular.Game(transition, game.start, game.gamma), max_steps=50, name="tiles")


def record(name: str, episodes: int, seed: int) -> dm2.Demonstrations:
    """Demonstrations as `tabular.four_tiles` describes them: of one team, or of each expert with a partner at random."""
    tiles = tabular.four_tiles(name)
    experts = tabular.expert_policies(tiles.game, tiles.expert)
    wander = np.full((12, 3), 1 / 3)
    teams = {"agent_0": [experts[0], wander], "agent_1": [wander, experts[1]]}
    if name == "together":
        teams = dict.fromkeys(teams, experts)

    def recorded(team: list[np.ndarray]) -> dm2.Demonstrations:
        rng = np.random.default_rng(seed)

        def policy(seen: dict[str, np.ndarray]) -> dict[str, int]:
            return {a: int(rng.choice(3, p=team[k][seen[a].argmax()])) for k, a in enumerate(seen)}

        return dm2.Demonstrations.record(make_env(), policy, episodes, seed=seed)

    if name == "together":
        return recorded(experts)
    return dm2.Demonstrations.mix({agent: recorded(team) for agent, team in teams.items()})


def make_team(demos: dm2.Demonstrations, order: str, seed: int) -> dm2.sb3.IndependentLearners:
    """One TRPO for each agent, whose actor is a table: one-hot states and no hidden layer."""
    options = {"learning_rate": 3e-3, "hidden": (32, 32), "gradient_penalty": 0.1, "batch_size": 128}
    turns = {"convergence": dm2.Convergence(tolerance=0.02, window=15, most=150)} if order == "turn" else {}
    return dm2.sb3.IndependentLearners(
        TRPO,
        dm2.vectorize(make_env, NUM_ENVS),
        matcher=dm2.DistributionMatcher(demos, keep_buffer=False, seed=seed, **options),
        coefficient=1.0,
        order=order,
        **turns,
        seed=seed,
        n_steps=N_STEPS,
        batch_size=128,
        n_critic_updates=3,
        target_kl=0.05,
        gamma=0.9,
        gae_lambda=0.9,
        policy_kwargs={"net_arch": []},
        device="cpu",
    )


def distance(team: dm2.sb3.IndependentLearners, name: str) -> float:
    """Total variation between the states that the team visits and those of the demonstrations, worse agent; exact."""
    tiles = tabular.four_tiles(name)
    with torch.no_grad():
        tables = [m.policy.get_distribution(torch.eye(12)).distribution.probs.double() for m in team.models.values()]
    visits = tabular.visitation(tiles.game, [(table / table.sum(1, keepdim=True)).numpy() for table in tables])
    return max(0.5 * float(np.abs(visits - expert.sum(axis=1)).sum()) for expert in tiles.marginals)


def main(args: Args) -> list[tuple[str, str, float, float, float]]:
    """Learn and print; the rows of the table."""
    rows = []
    bar = tqdm(total=len(args.demonstrations) * len(args.orders), unit="team")
    for name in args.demonstrations:
        tiles = tabular.four_tiles(name)
        bound = compatibility.check(tiles.game, tiles.marginals).disagreement / 2
        demos = record(name, args.episodes, args.seed)
        for order in args.orders:
            team = make_team(demos, order, args.seed)
            before = distance(team, name)
            # In turns an agent learns from every second rollout only.
            team.learn(args.rollouts * NUM_ENVS * N_STEPS * (len(team.agents) if order == "turn" else 1))
            rows.append((name, order, bound, before, distance(team, name)))
            bar.update()
    bar.close()
    lines = ["| demonstrations | order | no team gets below | distance before | after |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {order} | {' | '.join(f'{value:.3f}' for value in rest)} |" for name, order, *rest in rows]
    table = "\n".join(lines)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "table.md").write_text(table + "\n")
    print(table)
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Args, description=__doc__))
