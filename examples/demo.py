"""What DM2 is for, in a few minutes: independent PPO on 5m_vs_6m with and without distribution matching, side by side.

    python examples/demo.py

Two processes with the same seed, steps and settings. At the end: a table, runs/demo/curve.png and a CSV of each run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from ippo_sb3 import plot, read_curve

import dm2_wrappers as dm2


@dataclass
class Args:
    env: str = "smax:5m_vs_6m"
    """backend:scenario"""
    demos: Path = Path("demos_data/smax_5m_vs_6m_win30.npz")
    """the demonstrators' file"""
    steps: int = 800_000
    """environment steps of each run"""
    seed: int = 0
    """seed of both runs"""
    eval_episodes: int = 64
    """test episodes per evaluation"""
    out: Path = Path("runs/demo")
    """where the runs, the table and the picture go; a finished run in it is not repeated"""


def main(args: Args) -> None:
    """Run both, wait, compare."""
    demos = dm2.Demonstrations.load(args.demos)
    script = Path(__file__).with_name("ippo_sb3.py")
    processes = {}
    for position, algorithm in enumerate(("dm2", "ippo")):
        options = {
            "algorithm": algorithm,
            "env": args.env,
            "demos": args.demos,
            "steps": args.steps,
            "seed": args.seed,
            "eval-episodes": args.eval_episodes,
            "run": args.out / algorithm,
            "bar-position": position,
        }
        command = [
            sys.executable,
            str(script),
            *(word for key, value in options.items() for word in (f"--{key}", str(value))),
        ]
        processes[algorithm] = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        failed = [name for name, process in processes.items() if process.wait() != 0]
    finally:
        for process in processes.values():
            process.kill()
    if failed:
        raise SystemExit(f"{' and '.join(failed)} failed: see the messages above")

    curves = {name.upper(): read_curve(args.out / name / "evaluations.csv") for name in processes}
    plot(curves, args.out / "curve.png", title=args.env, demos=demos)
    lines = [f"| {args.env}, seed {args.seed} | battles won | standard error |", "|---|---|---|"]
    for name in processes:
        final = json.loads((args.out / name / "final.json").read_text())
        label = f"{name.upper()}, {final['step']:,} steps ({final['episodes']:.0f} episodes)"
        lines.append(f"| {label} | {final['win_rate']:.3f} | {final['win_rate_se']:.3f} |")
    rate = demos.win_rate or 0.0
    error = (rate * (1 - rate) / len(demos)) ** 0.5
    lines.append(f"| demonstrators ({len(demos)} episodes) | {rate:.3f} | {error:.3f} |")
    table = "\n".join(lines)
    (args.out / "table.md").write_text(table + "\n")
    print(f"\n\n{table}\n\npicture: {args.out}/curve.png, curves: {args.out}/*/evaluations.csv")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
