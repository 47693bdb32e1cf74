"""The results as arrays: one curve's runs, read from their CSVs."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.plan import Curve, Panel, Run
from experiments.run import evaluations, facts_of, is_done, sum_of


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
        commits: Of the checkouts that did the runs.
    """

    curve: Curve
    steps: NDArray[np.float64]
    win_rates: NDArray[np.float64]
    lengths: NDArray[np.float64]
    final: NDArray[np.float64]
    seconds: float
    demonstrators: float | None
    commits: tuple[str, ...]

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

    facts = [facts_of(run) for run in runs]
    used = sorted({str(sum_of(each["demonstrations"])) for each in facts})
    if len(used) > 1:
        raise ValueError(f"the runs of {runs[0].folder.parent} used unlike demonstrations, by SHA-256: {', '.join(used)}")
    finals = [json.loads((run.folder / "final.json").read_text())["win_rate"] for run in runs]
    return Measured(
        curve,
        np.array(steps, dtype=np.float64),
        column("win_rate"),
        column("length"),
        np.array(finals, dtype=np.float64),
        sum(each["seconds"] for each in facts),
        (facts[0]["demonstrations"] or {}).get("win_rate"),
        tuple(sorted({commit for each in facts for commit in (each["commit"], *each.get("earlier_commits", ()))})),
    )
