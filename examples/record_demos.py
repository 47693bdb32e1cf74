"""Train a team of independent PPOs and record demonstrations as its win rate passes the wanted levels.

    python examples/record_demos.py --env smax:5m_vs_6m --levels 0.3 0.5

One training passes all levels, from the lowest up. At each it records joint episodes of the sampling policy and measures
the win rate of just those. A file is called after the level if that is close to it (`closeness`), else after what it is;
a level that the team leapt over has no file. The team itself goes to teams/ in the run's folder. Killed and started again
with the same options, it goes on from its last checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import ippo_sb3
import torch
import tyro
from tqdm import tqdm

import dm2_wrappers as dm2

SHORTEST = 4_096  # environment steps between two looks at the win rate, where it changes fast


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
    look_every: int = 65_536
    """environment steps between two looks at the win rate, at most; fewer for small maps, where it leaps"""
    seed: int = 0
    """seed of training; recording uses seed + 1000"""
    mean_first: int = 0
    """environment steps for which after_death="mean" comes before the learner's own: out of a plateau of early deaths"""
    learner: tyro.conf.OmitArgPrefixes[ippo_sb3.LearnerArgs] = field(default_factory=ippo_sb3.LearnerArgs)
    """how the team learns"""
    out: Path = Path("demos_data")
    """folder of the demonstration files"""
    run: Path | None = None
    """folder of the checkpoint; runs/demos/<env>_seed<seed> if not given"""


def main(args: Args) -> None:
    args.learner = args.learner.settled(args.env)
    name = args.env.replace(":", "_")
    run = args.run or Path("runs/demos") / f"{name}_seed{args.seed}"
    ippo_sb3.begin(run, args, free=("levels", "max_steps", "look_every", "out", "run"))
    num_envs, test_envs = args.learner.num_envs, dm2.envs.default_num_envs(args.env)
    options = args.learner.env_options
    with (
        dm2.envs.vector_env(args.env, num_envs, **options) as venv,
        dm2.envs.vector_env(args.env, test_envs, **options) as test_env,
    ):
        train_and_record(args, name, run, venv, test_env)


def train_and_record(args: Args, name: str, run: Path, venv, test_env) -> None:
    checkpoint, curve = run / "checkpoint.zip", run / "evaluations.csv"
    if checkpoint.exists():
        team = dm2.sb3.IndependentLearners.load(checkpoint, venv, device=args.learner.device)
        rows = ippo_sb3.read_curve(curve, up_to=team.num_timesteps)
        print(f"going on from {checkpoint} at {team.num_timesteps:,} steps")
    else:
        team, rows = ippo_sb3.make_team(args.learner, venv, seed=args.seed), []
    recorded = run / "recorded.json"  # the levels done, so that an interrupted training does not record them again
    done = json.loads(recorded.read_text()) if recorded.exists() else []
    levels = sorted(set(args.levels) - set(done))
    bar = tqdm(total=args.max_steps, initial=team.num_timesteps, unit="step", unit_scale=True)
    interval = SHORTEST
    for number in range(1, len(rows) + 1):  # as if it had not been interrupted
        interval = next_interval(interval, rows[:number], args.look_every)
    while levels and team.num_timesteps < args.max_steps:
        before = team.num_timesteps
        team.after_death = "mean" if before < args.mean_first else args.learner.after_death
        team.learn(interval, reset_num_timesteps=before == 0)
        bar.update(team.num_timesteps - before)
        rows.append({"step": team.num_timesteps, **team.evaluate(test_env, 128, seed=team.num_timesteps)})
        rate = rows[-1]["win_rate"]
        interval = next_interval(interval, rows, args.look_every)
        bar.set_postfix(win_rate=f"{rate:.2f}", next_level=levels[0])
        if rate >= levels[0] - 0.02:
            demos = record(team, args, test_env)
            # The lucky ones of many small evaluations get here: what counts is the recorded episodes' own rate.
            won = demos.win_rate or 0.0
            if passed := [level for level in levels if won >= level - closeness(level)]:
                keep(team, demos, args, name, run, level=min(passed, key=lambda level: abs(level - won)))
                levels, done = levels[len(passed) :], done + passed
                ippo_sb3.write_json(recorded, done)
        ippo_sb3.write_curve(curve, rows)
        team.save(checkpoint)
        team.restart_episodes()
    bar.close()
    if levels:
        print(f"stopped at {team.num_timesteps:,} steps, below the levels {levels}")
        demos = record(team, args, test_env)
        keep(team, demos, args, name, run, demos.win_rate or 0.0, overwrite=False)


def next_interval(interval: int, rows: list[dict[str, float]], look_every: int) -> int:
    """Environment steps until the next look: half as many where the win rate leaps, else twice as many."""
    gain = rows[-1]["win_rate"] - rows[-2]["win_rate"] if len(rows) > 1 else 0.0
    return max(SHORTEST, interval // 2) if abs(gain) > 0.06 else min(look_every, interval * 2)


def closeness(level: float) -> float:
    """How far from the level a file's win rate may be to bear its name: 5 points, less where the level is low."""
    return min(0.05, 0.02 + level / 10)


def record(team, args: Args, env) -> dm2.Demonstrations:
    """Joint episodes of the sampling policy."""
    settings = json.loads(json.dumps(asdict(args), default=str))
    provenance = {
        "algorithm": f"IPPO ({'Recurrent' if args.learner.recurrent else 'Maskable'}PPO per agent)",
        "train_steps": team.num_timesteps,
        "settings": settings,
    }
    return dm2.Demonstrations.record(env, team.policy(), args.episodes, seed=args.seed + 1000, provenance=provenance)


def keep(team, demos: dm2.Demonstrations, args: Args, name: str, run: Path, level: float, *, overwrite: bool = True) -> None:
    """Save them under the level's name, or the truth's where that is another."""
    rate = demos.win_rate or 0.0
    named = f"win{round(100 * (level if abs(rate - level) <= closeness(level) else rate)):02d}"
    path = args.out / f"{name}_{named}.npz"
    if path.exists() and not overwrite:
        print(f"{path} is there already: the last team, whose win rate is {rate:.3f}, is not kept")
        return
    team.save(run / "teams" / named)  # first: demonstrations that are there have their team
    demos.save(path)
    size, steps = path.stat().st_size / 1e6, demos.metadata["policy"]["train_steps"]
    tqdm.write(f"{path}: {len(demos)} episodes, win rate {rate:.3f}, {steps:,} steps of training, {size:.1f} MB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Args, description=__doc__))
