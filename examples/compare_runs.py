r"""One figure and one table from several runs of ippo_sb3.py: mean and standard error over seeds.

    python examples/compare_runs.py --out results/5m_vs_6m/curve --title "SMAX 5m_vs_6m" \
        --demos demos_data/smax_5m_vs_6m_win30.npz \
        --runs "DM2=results/5m_vs_6m/dm2_seed*" "IPPO=results/5m_vs_6m/ippo_seed*"

Writes <out>.png and <out>.md. The table has each run's final.json: the win rate of the sampling policy after training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

import numpy as np
import tyro
from ippo_sb3 import plot, read_curve

import dm2_wrappers as dm2


@dataclass
class Args:
    runs: list[str] = field(default_factory=list)
    """LABEL=GLOB of run folders, one per curve"""
    out: Path = Path("results/comparison")
    """the figure's and the table's path, without ending"""
    title: str = ""
    """of the figure"""
    demos: Path | None = None
    """demonstrations whose win rate is drawn as a line"""


def over_seeds(folders: list[Path]) -> list[dict[str, float]]:
    """The mean curve of several runs, with the standard error over runs, at the steps that all have."""
    curves = [{row["step"]: row["win_rate"] for row in read_curve(folder / "evaluations.csv")} for folder in folders]
    rows = []
    for step in sorted(set.intersection(*(set(curve) for curve in curves))):
        mean, error = mean_and_error([curve[step] for curve in curves])
        rows.append({"step": step, "win_rate": mean, "win_rate_se": error})
    return rows


def mean_and_error(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def main(args: Args) -> None:
    curves, lines = {}, ["| runs | seeds | battles won, each seed | mean | standard error |", "|---|---|---|---|---|"]
    for entry in args.runs:
        label, _, pattern = entry.partition("=")
        folders = [Path(folder) for folder in sorted(glob(pattern))]
        if not folders:
            raise SystemExit(f"no run folder matches {pattern!r}: expected LABEL=GLOB, such as 'DM2=runs/dm2_*'")
        curves[f"{label} ({len(folders)} seeds)"] = over_seeds(folders)
        finals = [json.loads((folder / "final.json").read_text())["win_rate"] for folder in folders]
        mean, error = mean_and_error(finals)
        each = ", ".join(f"{rate:.3f}" for rate in finals)
        lines.append(f"| {label} | {len(folders)} | {each} | {mean:.3f} | {error:.3f} |")
    demos = None if args.demos is None else dm2.Demonstrations.load(args.demos)
    if demos is not None:
        lines.append(f"| demonstrators | | {len(demos)} episodes | {demos.win_rate:.3f} | |")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    plot(curves, args.out.with_suffix(".png"), title=args.title, demos=demos)
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
