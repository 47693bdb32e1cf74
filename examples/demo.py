"""A short demonstration: independent PPO on 5m_vs_6m with and without DM2, side by side.

    python examples/demo.py

Trains in two processes with the same seed, steps and settings, prints a table, and writes runs/demo/curve.png and a CSV file
for each run.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import _runs
import numpy as np
import tyro
from _plot import plot

import dm2_wrappers as dm2

ALGORITHMS = ("dm2", "ippo")


@dataclass
class Args:
    env: str = "smax:5m_vs_6m"
    """smax:SCENARIO, smac:MAP, or module:function for your own environment"""
    demos: Path = Path("demos_data/smax_5m_vs_6m_win30.npz")
    """the experts' demonstrations"""
    steps: int = 800_000
    """environment steps of each run"""
    seed: int = 0
    """seed of both runs"""
    eval_episodes: int = 64
    """test episodes per evaluation"""
    final_episodes: int = 512
    """test episodes after training, for the table"""
    out: Path = Path("runs/demo")
    """folder for the runs, the table and the figure; finished runs in it are not repeated"""


def main(args: Args) -> None:
    """Run both, wait, compare."""
    with _runs.running(args.out):
        demos = _runs.demonstrations(args.demos, args.env)
        train_both(args)
        finals = {name: _runs.read_json(args.out / name / "final.json", dict) for name in ALGORITHMS}
        wins = all("win_rate" in final for final in finals.values())
        measure, words = ("win_rate", "episodes won") if wins else ("return", "mean return")
        curves, lines = {}, [f"| {args.env}, seed {args.seed} | {words} | standard error |", "|---|---|---|"]
        for name, final in finals.items():
            curves[name.upper()] = _runs.read_curve(args.out / name / "evaluations.csv", up_to=final["step"])
            label = f"{name.upper()}, {final['step']:,} steps ({final['episodes']:.0f} episodes)"
            lines.append(f"| {label} | {final[measure]:.3f} | {final[f'{measure}_se']:.3f} |")
        scores = scores_of(demos, wins)
        if len(scores) > 1:
            error = scores.std(ddof=1) / len(scores) ** 0.5
            lines.append(f"| experts ({len(scores)} episodes) | {scores.mean():.3f} | {error:.3f} |")
        plot(curves, args.out / "curve.png", title=args.env, demos=demos, logs=args.out / "dm2" / "agents")
        table = "\n".join(lines)
        (args.out / "table.md").write_text(table + "\n")
    print(f"\n\n{table}\n\npicture: {args.out}/curve.png, curves: {args.out}/*/evaluations.csv")


def scores_of(demos: dm2.Demonstrations, wins: bool) -> np.ndarray:
    """Of each of the experts' episodes, whether it was won, if that is known; or its return."""
    if wins:
        return demos.won[0][demos.won[0] >= 0]
    columns = zip(demos.rewards.T.astype(float), demos.offsets, strict=True)
    sums = [np.add.reduceat(rewards[: offsets[-1]], offsets[:-1]) for rewards, offsets in columns]
    return np.mean(sums, axis=0) if demos.style == "concurrent" else np.concatenate(sums)


def train_both(args: Args) -> None:
    """Train with and without DM2, in one process each."""
    script = Path(__file__).with_name("ippo_sb3.py")
    processes = {}
    on_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the processes ignore Ctrl-C: this program ends them
    for position, algorithm in enumerate(ALGORITHMS):
        options = {
            "algorithm": algorithm,
            "env": args.env,
            "demos": args.demos,
            "steps": args.steps,
            "seed": args.seed,
            "eval-episodes": args.eval_episodes,
            "final-episodes": args.final_episodes,
            "run": args.out / algorithm,
            "bar-position": position,
        }
        command = [sys.executable, script, *(word for key, value in options.items() for word in (f"--{key}", value))]
        processes[algorithm] = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        failed = [name for name, process in processes.items() if process.wait() != 0]
    finally:
        for process in processes.values():
            process.terminate()
            process.wait()
    if failed:
        raise SystemExit(f"{' and '.join(failed)} failed: see the messages above")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
