"""Train a team of independent PPOs and record demonstrations as its win rate passes the wanted levels.

    python examples/record_demos.py --env smax:5m_vs_6m --levels 0.3 0.5

One training passes all levels, from the lowest up. At each it records joint episodes of the sampling policy and measures
the win rate of just those. A file is called after the level if that is within five points of it, else after what it is.
Killed and started again with the same options, it goes on from its last checkpoint.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
import tyro
from sb3_contrib import MaskablePPO
from tqdm import tqdm

import dm2_wrappers as dm2

CLOSE = 0.05  # a recorded win rate this close to the level bears the level's name


@dataclass
class Args:
    env: str = "smax:5m_vs_6m"
    """backend:scenario"""
    levels: list[float] = field(default_factory=lambda: [0.3, 0.5])
    """win rates at which to record"""
    episodes: int = 1000
    """joint episodes in each file"""
    max_steps: int = 8_000_000
    """give up after so many environment steps"""
    seed: int = 0
    """seed of training; recording uses seed + 1000"""
    num_envs: int | None = None
    """battles played at once; 64 of SMAX or 4 of SMAC if not given"""
    learning_rate: float = 1e-3
    """Adam's step size"""
    max_grad_norm: float = 10.0
    """gradient clipping"""
    after_death: Literal["earned", "mean", "critic"] = "earned"
    """what a death is followed by, for its learner: see dm2_wrappers/sb3/buffers.py"""
    n_steps: int | None = None
    """steps of each copy per rollout; 4,096 over all copies if not given"""
    out: Path = Path("demos_data")
    """folder of the demonstration files"""
    run: Path | None = None
    """folder of the checkpoint; runs/demos/<env>_seed<seed> if not given"""
    device: str = "cpu"
    """where the networks live"""


def train_and_record(args: Args) -> None:
    args.num_envs = args.num_envs or dm2.envs.default_num_envs(args.env)
    args.n_steps = args.n_steps or 4096 // args.num_envs
    name = args.env.replace(":", "_")
    run = args.run or Path("runs/demos") / f"{name}_seed{args.seed}"
    venv = dm2.envs.vector_env(args.env, args.num_envs)
    test_env = dm2.envs.vector_env(args.env, dm2.envs.default_num_envs(args.env))
    checkpoint = run / "team"
    if checkpoint.with_suffix(".zip").exists():
        team = dm2.sb3.IndependentLearners.load(checkpoint, venv, device=args.device)
        print(f"going on from {checkpoint}.zip at {team.num_timesteps:,} steps")
    else:
        team = dm2.sb3.IndependentLearners(
            MaskablePPO,
            venv,
            seed=args.seed,
            n_steps=args.n_steps,
            batch_size=args.n_steps * args.num_envs // 4,
            n_epochs=4,
            learning_rate=args.learning_rate,
            ent_coef=0.01,
            max_grad_norm=args.max_grad_norm,
            policy_kwargs={"activation_fn": torch.nn.ReLU},
            after_death=args.after_death,
            device=args.device,
        )

    levels = sorted(args.levels)
    bar = tqdm(total=args.max_steps, initial=team.num_timesteps, unit="step", unit_scale=True)
    rate = 0.0
    while levels and team.num_timesteps < args.max_steps:
        # Look more often near the level: on small maps a team goes from 10 to 60 % within 100,000 steps.
        chunk = 65_536 if rate < levels[0] - 0.25 else 8_192
        before = team.num_timesteps
        team.learn(chunk, reset_num_timesteps=before == 0)
        team.save(checkpoint)
        bar.update(team.num_timesteps - before)
        rate = team.evaluate(test_env, 128, seed=team.num_timesteps)["win_rate"]
        bar.set_postfix(win_rate=f"{rate:.2f}", next_level=levels[0])
        if rate >= levels[0] - 0.02:
            demos = record(team, args, test_env)
            # The lucky ones of many small evaluations get here: what counts is the recorded episodes' own rate.
            if (demos.win_rate or 0.0) >= levels[0] - CLOSE:
                keep(demos, args, name, levels.pop(0))
    bar.close()
    if levels:
        print(f"stopped at {team.num_timesteps:,} steps with a win rate of {rate:.2f}, below the levels {levels}")
        keep(record(team, args, test_env), args, name, rate)


def record(team, args: Args, env) -> dm2.Demonstrations:
    """Joint episodes of the sampling policy."""
    settings = {key: str(value) for key, value in asdict(args).items()}
    provenance = {"algorithm": "IPPO (MaskablePPO per agent)", "train_steps": team.num_timesteps, "settings": settings}
    return dm2.Demonstrations.record(env, team.policy(), args.episodes, seed=args.seed + 1000, provenance=provenance)


def keep(demos: dm2.Demonstrations, args: Args, name: str, level: float) -> None:
    """Save them under the level's name, or the truth's where that is another."""
    rate = demos.win_rate or 0.0
    named = level if abs(rate - level) <= CLOSE else rate
    path = args.out / f"{name}_win{round(100 * named)}.npz"
    demos.save(path)
    size, steps = path.stat().st_size / 1e6, demos.metadata["policy"]["train_steps"]
    tqdm.write(f"{path}: {len(demos)} episodes, win rate {rate:.3f}, {steps:,} steps of training, {size:.1f} MB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_and_record(tyro.cli(Args, description=__doc__))
