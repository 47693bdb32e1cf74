"""The results as arrays: one curve's runs, read from their CSVs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.demonstrations import Demonstrations
from experiments.grids import Curve, Panel, Run, demos_path
from experiments.run import ROOT, evaluations, is_done


@dataclass(frozen=True)
class Measured:
    """One curve's finished runs.

    Attributes:
        curve: Which.
        steps: Environment steps of the evaluations that all runs have, [T].
        win_rates: Of 32 test episodes each, [runs, T].
        lengths: Their mean length in steps, [runs, T].
        final: Win rate of the larger evaluation after training, [runs].
        seconds: Training took in all runs together.
        demonstrators: Their win rate; None where there are none.
    """

    curve: Curve
    steps: NDArray[np.float64]
    win_rates: NDArray[np.float64]
    lengths: NDArray[np.float64]
    final: NDArray[np.float64]
    seconds: float
    demonstrators: float | None

    @property
    def label(self) -> str:
        """The curve's, with its demonstrators' win rate."""
        return self.curve.label if self.demonstrators is None else f"{self.curve.label} ({self.demonstrators:.0%})"


def measured(panel: Panel, runs: list[Run]) -> list[Measured]:
    """A panel's curves, in order; a curve without a finished run is left out."""
    found = []
    for curve in panel.curves:
        done = [
            run for run in runs if run.curve.slug == curve.slug and run.panel.scenario == panel.scenario and is_done(run)
        ]
        if done:
            found.append(_read(curve, done))
    return found


def _read(curve: Curve, runs: list[Run]) -> Measured:
    tables = [{int(float(row["step"])): row for row in evaluations(run)} for run in runs]
    steps = sorted(set.intersection(*(set(table) for table in tables)))

    def column(name: str) -> NDArray[np.float64]:
        return np.array([[float(table[step][name]) for step in steps] for table in tables])

    finals = [json.loads((run.folder / "final.json").read_text())["win_rate"] for run in runs]
    seconds = sum(json.loads((run.folder / "run.json").read_text())["seconds"] for run in runs)
    return Measured(
        curve,
        np.array(steps, dtype=np.float64),
        column("win_rate"),
        column("length"),
        np.array(finals, dtype=np.float64),
        seconds,
        _demonstrators(runs[0]),
    )


def _demonstrators(run: Run) -> float | None:
    """Their win rate, which the run's folder keeps: the demonstrations themselves may be too large to be kept."""
    if run.curve.demos is None:
        return None
    kept = run.folder.parent / "demonstrators.json"
    if not kept.is_file():
        kept.write_text(json.dumps(describe(ROOT / demos_path(run.env, run.curve.demos)), indent=1) + "\n")
    return json.loads(kept.read_text())["win_rate"]


def describe(path: Path) -> dict[str, object]:
    """A demonstrations' file in a few numbers."""
    demos = Demonstrations.load(path)
    return {
        "file": str(path.relative_to(ROOT)),
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "episodes": len(demos),
        # Of mixed demonstrations, whose agents won different battles, the mean over agents.
        "win_rate": float(demos.won.mean()) if (demos.won >= 0).all() else None,
        "mean_return": demos.mean_return,
        "mean_length": demos.mean_length,
        "style": demos.style,
    }
