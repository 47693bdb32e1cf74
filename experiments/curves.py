"""Results as arrays: the finished runs of a curve, read from their files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.plan import Curve, Panel, Run
from experiments.run_files import (
    RunFolderError,
    checksum,
    is_done,
    read_evaluations,
    read_final,
    read_run_json,
    require_all_evaluations,
)


@dataclass(frozen=True)
class CurveResults:
    """The finished runs of one curve.

    Attributes:
        curve: The curve.
        steps: Environment steps of the evaluations that all runs have, [T].
        win_rates: Win rate of each evaluation, [runs, T].
        lengths: Mean episode length of each evaluation in steps, [runs, T].
        final: Win rate of the larger evaluation after training, [runs].
        seconds: Training time of all runs together.
        expert_win_rate: The experts' win rate; None without experts.
        commits: The commits of the checkouts that did the runs.
    """

    curve: Curve
    steps: NDArray[np.float64]
    win_rates: NDArray[np.float64]
    lengths: NDArray[np.float64]
    final: NDArray[np.float64]
    seconds: float
    expert_win_rate: float | None
    commits: tuple[str, ...]

    @property
    def label(self) -> str:
        """The curve's label with the experts' win rate."""
        return self.curve.label if self.expert_win_rate is None else f"{self.curve.label} ({self.expert_win_rate:.0%})"


def read_panel(panel: Panel, runs: list[Run]) -> list[CurveResults]:
    """The results of a panel's curves, in order; curves without a finished run are left out.

    Raises:
        RunFolderError: A file is damaged, or the runs of a curve used different demonstrations.
    """
    found = []
    for curve in panel.curves:
        done = [
            run for run in runs if run.curve.slug == curve.slug and run.panel.scenario == panel.scenario and is_done(run)
        ]
        if done:
            found.append(_read_curve(curve, done))
    return found


def _read_curve(curve: Curve, runs: list[Run]) -> CurveResults:
    tables, finals = [], []
    for run in runs:
        rows, final = read_evaluations(run.folder), read_final(run.folder)
        assert final is not None  # the run is done
        require_all_evaluations(run.folder, rows, final)
        tables.append({row["step"]: row for row in rows})
        finals.append(_value(final, "win_rate", run, "final.json"))
    steps = sorted(set.intersection(*(set(table) for table in tables)))

    def column(name: str) -> NDArray[np.float64]:
        return np.array(
            [
                [_value(table[step], name, run, "evaluations.csv") for step in steps]
                for run, table in zip(runs, tables, strict=True)
            ]
        )

    records = [read_run_json(run.folder) for run in runs]
    used = sorted({str(checksum(each["demonstrations"])) for each in records})
    if len(used) > 1:
        raise RunFolderError(
            f"the runs in {runs[0].folder.parent} used different demonstrations, with SHA-256 {', '.join(used)}: repeat "
            "those that used the wrong ones"
        )
    return CurveResults(
        curve,
        np.array(steps, dtype=np.float64),
        column("win_rate"),
        column("length"),
        np.array(finals, dtype=np.float64),
        sum(each["seconds"] for each in records),
        (records[0]["demonstrations"] or {}).get("win_rate"),
        tuple(sorted({commit for each in records for commit in (each["commit"], *each.get("earlier_commits", ()))})),
    )


def _value(values: dict[str, float], name: str, run: Run, file: str) -> float:
    if name not in values:
        raise RunFolderError(f"{run.folder / file} has no {name!r}: the figures need it; repeat the run on a known backend")
    return values[name]
