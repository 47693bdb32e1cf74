"""Results as arrays: the finished runs of a curve, read from their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
        scores: Win rate, or mean return, of each evaluation, [runs, T].
        lengths: Mean episode length of each evaluation in steps, [runs, T].
        final: The same of the larger evaluation after training, [runs].
        seconds: Training time of all runs together.
        expert_score: The same of the experts' episodes; None without experts, and if only episodes that they won were kept.
        commits: The commits of the checkouts that did the runs.
        measure: "win_rate" or "return".
        greedy: As ``final``, with the most likely actions; None if not every run measured it.
    """

    curve: Curve
    steps: NDArray[np.float64]
    scores: NDArray[np.float64]
    lengths: NDArray[np.float64]
    final: NDArray[np.float64]
    seconds: float
    expert_score: float | None
    commits: tuple[str, ...]
    measure: str = "win_rate"
    greedy: NDArray[np.float64] | None = None

    @property
    def label(self) -> str:
        """The curve's label with the experts' win rate or return."""
        if self.expert_score is None:
            return self.curve.label
        experts = f"{self.expert_score:.0%}" if self.measure == "win_rate" else f"{self.expert_score:.3g}"
        return f"{self.curve.label} ({experts})"


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
            found.append(_read_curve(curve, done, panel.measure))
    return found


def _read_curve(curve: Curve, runs: list[Run], measure: str) -> CurveResults:
    tables, finals, greedy = [], [], []
    for run in runs:
        rows, final = read_evaluations(run.folder), read_final(run.folder)
        assert final is not None  # the run is done
        require_all_evaluations(run.folder, rows, final)
        tables.append({row["step"]: row for row in rows})
        finals.append(_value(final, measure, run, "final.json"))
        greedy += [final[f"greedy_{measure}"]] if f"greedy_{measure}" in final else []
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
        column(measure),
        column("length"),
        np.array(finals, dtype=np.float64),
        sum(each["seconds"] for each in records),
        _expert_score(records[0]["demonstrations"], measure),
        tuple(sorted({commit for each in records for commit in (each["commit"], *each.get("earlier_commits", ()))})),
        measure,
        np.array(greedy, dtype=np.float64) if len(greedy) == len(runs) else None,
    )


def _expert_score(demonstrations: Mapping[str, Any] | None, measure: str) -> float | None:
    """What a run's ``run.json`` says about its demonstrations; a file of won episodes does not say how often they win."""
    if demonstrations is None:
        return None
    score = demonstrations.get("mean_return" if measure == "return" else measure)
    return None if measure == "win_rate" and score == 1.0 else score


def _value(values: dict[str, float], name: str, run: Run, file: str) -> float:
    if name not in values:
        raise RunFolderError(f"{run.folder / file} has no {name!r}: the figures need it; repeat the run on a known backend")
    return values[name]
