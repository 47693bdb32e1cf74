"""Train a team of independent PPO learners and record demonstrations when its win rate passes the given levels.

    python examples/record_demos.py --env smax:5m_vs_6m --levels 0.3 0.5
    python examples/record_demos.py --env mpe2.simple_spread_v3:parallel_env --levels -60 -40     # levels of return

One training run passes the levels in increasing order. At each level it records joint episodes with sampled actions and
measures their win rate. If this win rate is close to the level (`closeness`), the file is named after the level, otherwise
after the win rate. If the team skips a level, there is no file for it. The team itself is saved to teams/ in the run's
folder. In an environment that does not report wins, levels are mean returns. To continue a run that was stopped, run the
same command again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import _runs
import ippo_sb3
import torch
import tyro
from tqdm import tqdm

import dm2_wrappers as dm2

SHORTEST = 4_096  # environment steps between two looks at the win rate, where it changes fast


@dataclass
class Args:
    env: str = "smax:5m_vs_6m"
    """smax:SCENARIO, smac:MAP, or module:function for a function that makes a PettingZoo ParallelEnv"""
    levels: list[float] = field(default_factory=lambda: [0.3, 0.5])
    """win rates at which to record, or mean returns if the environment does not report wins"""
    episodes: int = 1000
    """joint episodes in each file"""
    max_steps: int = 8_000_000
    """maximum number of environment steps"""
    look_every: int = 65_536
    """maximum number of environment steps between two measurements of the win rate; use fewer if it rises fast"""
    seed: int = 0
    """seed of training; recording uses seed + 1000"""
    mean_first: int = 0
    """train with after_death="mean" for this many steps first; this helps a team out of a plateau of early deaths"""
    learner: tyro.conf.OmitArgPrefixes[ippo_sb3.LearnerArgs] = field(default_factory=ippo_sb3.LearnerArgs)
    """options of the learners"""
    out: Path = Path("demos_data")
    """folder of the demonstration files"""
    run: Path | None = None
    """folder of the checkpoint; default: runs/demos/<env>_seed<seed>"""


def main(args: Args) -> None:
    _runs.check_counts(episodes=args.episodes, look_every=args.look_every)
    args.learner = args.learner.settled(args.env)
    run = args.run or Path("runs/demos") / f"{_runs.file_name(args.env)}_seed{args.seed}"
    options = args.learner.env_options
    with _runs.running(run):
        _runs.begin(run, args, free=("levels", "max_steps", "look_every", "out", "run"))
        with (
            _runs.vector_env(args.env, args.learner.num_envs, **options) as venv,
            _runs.vector_env(args.env, _runs.default_num_envs(args.env), **options) as test_env,
        ):
            train_and_record(args, run, venv, test_env)


def train_and_record(args: Args, run: Path, venv, test_env) -> None:
    checkpoint, curve, rows = run / "checkpoint.zip", run / "evaluations.csv", []
    team = ippo_sb3.make_team(args.learner, venv, seed=args.seed)
    if checkpoint.exists():
        ippo_sb3.restore(team, checkpoint)
        rows = _runs.read_curve(curve, up_to=team.num_timesteps)
        print(f"continuing from {checkpoint} at {team.num_timesteps:,} steps")
    recorded = run / "recorded.json"  # the levels done, so that an interrupted training does not record them again
    done = _runs.read_json(recorded, list) if recorded.exists() else []
    levels = sorted(set(args.levels) - set(done))
    interval = first_interval(args)
    for number in range(1, len(rows) + 1):  # as if it had not been interrupted
        interval = next_interval(interval, rows[:number], args)
    bar = tqdm(total=args.max_steps, initial=team.num_timesteps, unit="step", unit_scale=True)
    with bar:
        while levels and team.num_timesteps < args.max_steps:
            team.after_death = "mean" if team.num_timesteps < args.mean_first else args.learner.after_death
            ippo_sb3.learn(team, interval, bar, run)
            rows.append({"step": team.num_timesteps, **team.evaluate(test_env, 128, seed=team.num_timesteps)})
            interval = next_interval(interval, rows, args)
            bar.set_postfix({measure(rows[-1]): f"{score(rows[-1]):.2f}"}, next_level=levels[0])
            if score(rows[-1]) >= levels[0] - (0.02 if "win_rate" in rows[-1] else 0.0):
                demos = record(team, args, test_env)
                # A small evaluation may be lucky: the recorded episodes' own win rate decides.
                reached = level_of(demos)
                if passed := [level for level in levels if reached >= level - closeness_of(demos, level)]:
                    keep(team, demos, args, run, level=min(passed, key=lambda level: abs(level - reached)))
                    levels, done = levels[len(passed) :], done + passed
                    _runs.write_json(recorded, done)
            _runs.write_curve(curve, rows)
            team.save(checkpoint)
            team.restart_episodes()
    if levels:
        print(f"stopped at {team.num_timesteps:,} steps, below the levels {levels}")
        demos = record(team, args, test_env)
        keep(team, demos, args, run, level_of(demos), overwrite=False)
    (run / "stopped.zip").unlink(missing_ok=True)


def measure(row: dict[str, float]) -> str:
    """What levels are levels of: win rates, or returns where the environment does not report wins."""
    return "win_rate" if "win_rate" in row else "return"


def score(row: dict[str, float]) -> float:
    """The win rate or return of an evaluation."""
    return row[measure(row)]


def level_of(demos: dm2.Demonstrations) -> float:
    """The win rate or mean return of recorded episodes."""
    return demos.mean_return if demos.win_rate is None else demos.win_rate


def first_interval(args: Args) -> int:
    """Environment steps until the first look, and at least so many until any other."""
    return min(SHORTEST, args.look_every)


def next_interval(interval: int, rows: list[dict[str, float]], args: Args) -> int:
    """Environment steps until the next look: half as many where the win rate jumps, else twice as many."""
    gain = score(rows[-1]) - score(rows[-2]) if len(rows) > 1 else 0.0
    jump = 0.06 if "win_rate" in rows[-1] else 0.06 * abs(max(args.levels) - score(rows[0]))
    return max(first_interval(args), interval // 2) if abs(gain) > jump else min(args.look_every, interval * 2)


def closeness(level: float) -> float:
    """How close to a level a file's win rate must be for the file to have its name: 5 points, less for low levels."""
    return min(0.05, 0.02 + level / 10)


def closeness_of(demos: dm2.Demonstrations, level: float) -> float:
    """The same for these episodes; for returns, 5 % of the level."""
    return 0.05 * abs(level) if demos.win_rate is None else closeness(level)


def record(team, args: Args, env) -> dm2.Demonstrations:
    """Record joint episodes of the sampling policy."""
    folders = ("out", "run")  # where this machine keeps its files
    settings = {k: v for k, v in json.loads(json.dumps(asdict(args), default=str)).items() if k not in folders}
    provenance = {
        "algorithm": f"IPPO ({'Recurrent' if args.learner.recurrent else 'Maskable'}PPO per agent)",
        "train_steps": team.num_timesteps,
        "settings": settings,
    }
    return dm2.Demonstrations.record(env, team.policy(), args.episodes, seed=args.seed + 1000, provenance=provenance)


def keep(team, demos: dm2.Demonstrations, args: Args, run: Path, level: float, *, overwrite: bool = True) -> None:
    """Save them under the level's name, or under their own win rate if that is not close to it."""
    reached = level_of(demos)
    shown = level if abs(reached - level) <= closeness_of(demos, level) else reached
    named = f"return{shown:.4g}" if demos.win_rate is None else f"win{round(100 * shown):02d}"
    path = args.out / f"{_runs.file_name(args.env)}_{named}.npz"
    if path.exists() and not overwrite:
        print(f"{path} already exists, so the last team ({reached:.3f}) is not saved")
        return
    team.save(run / "teams" / named)  # first: demonstrations that are there have their team
    demos.save(path)
    size, steps = path.stat().st_size / 1e6, demos.metadata["policy"]["train_steps"]
    what = "mean return" if demos.win_rate is None else "win rate"
    tqdm.write(f"{path}: {len(demos)} episodes, {what} {reached:.3f}, {steps:,} steps of training, {size:.1f} MB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Args, description=__doc__))
