"""Tables in Markdown: what each curve's runs won, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.curves import Measured
from experiments.statistics import (
    area_under_curve,
    interquartile_mean,
    mean_and_error,
    probability_of_improvement,
)

_HEAD = (
    "runs",
    "seeds",
    "demonstrators win",
    "won after training, mean ± standard error",
    "area under the curve, mean ± standard error",
    "its interquartile mean [95 %]",
    "P(area above the baseline's) [95 %]",
    "interval apart from the baseline's",
    "steps until it wins what the baseline won in the end (mean of five evaluations)",
    "episode length at the end",
    "hours",
    "commit",
)


_LOOKS = 5  # evaluations of 32 episodes each are too noisy one by one
_VERDICT = 5  # runs of both: the interval of fewer is hardly more than their range


def table(name: str, curves: list[Measured], baseline: str = "ippo") -> str:
    """One panel's table. The area under the curve is the win rate's mean over training."""
    areas = {one.curve.slug: area_under_curve(one.steps, one.win_rates) for one in curves}
    baselines = [one for one in curves if one.curve.slug == baseline]
    means = {slug: interquartile_mean(values) for slug, values in areas.items()}
    lines = [f"### {name}", "", _row(_HEAD), _row("---" for _ in _HEAD)]
    for one in curves:
        better = (
            ""
            if baseline not in areas or one.curve.slug == baseline
            else str(probability_of_improvement(areas[one.curve.slug], areas[baseline]))
        )
        lines.append(
            _row(
                (
                    one.label,
                    len(one.final),
                    "" if one.demonstrators is None else f"{one.demonstrators:.3f}",
                    _mean(one.final),
                    _mean(areas[one.curve.slug]),
                    means[one.curve.slug],
                    better,
                    _apart(areas[one.curve.slug], areas[baseline]) if better else "",
                    _steps_until(one, baselines[0]) if baselines else "",
                    f"{one.lengths[:, -1].mean():.0f}",
                    f"{one.seconds / 3600:.2f}",
                    ", ".join(one.commits),
                )
            )
        )
    return "\n".join(lines) + "\n"


def pooled(panels: Sequence[tuple[str, Sequence[Measured]]], baseline: str) -> str:
    """One table over all these scenarios, of the curves that each has; empty where there are not several of both.

    Args:
        panels: Scenarios and their curves.
        baseline: The label of the curve to compare with.
    """
    areas = [{one.curve.label: area_under_curve(one.steps, one.win_rates) for one in curves} for _, curves in panels]
    finals = [{one.curve.label: one.final for one in curves} for _, curves in panels]
    distinct = all(len(labels) == len(curves) for labels, (_, curves) in zip(areas, panels, strict=True))
    shared = [label for label in areas[0] if all(label in each for each in areas)]
    if len({scenario for scenario, _ in panels}) < max(2, len(panels)) or len(shared) < 2 or not distinct:
        return ""
    head = (
        "runs",
        "seeds, all together",
        "won after training, mean of the scenarios' interquartile means [95 %]",
        "area, mean of the scenarios' interquartile means [95 %]",
        "scenarios where that area is above the baseline's",
    )
    lines = [f"### {', '.join(scenario for scenario, _ in panels)} together", "", _row(head), _row("---" for _ in head)]
    for label in shared:
        above = ""
        if baseline in shared and label != baseline:
            better = (interquartile_mean(each[label]).value > interquartile_mean(each[baseline]).value for each in areas)
            above = f"{sum(map(bool, better))} of {len(areas)}"
        won, area = (interquartile_mean(*(each[label] for each in of)) for of in (finals, areas))
        lines.append(_row((label, sum(len(each[label]) for each in areas), won, area, above)))
    return "\n".join(lines) + "\n"


def _steps_until(one: Measured, baseline: Measured) -> str:
    """When the runs' mean over five evaluations is first as high as the baseline's over its last five."""
    own, target = (
        np.convolve(each.win_rates.mean(axis=0), np.full(_LOOKS, 1 / _LOOKS), "valid") for each in (one, baseline)
    )
    if min(len(one.steps), len(baseline.steps)) < _LOOKS or target[-1] == 0:
        return ""
    there = np.flatnonzero(own >= target[-1])
    if not len(there):
        return "not within the run"
    # The first five evaluations end where they end: it may have been there before.
    return ("at most " if there[0] == 0 else "") + f"{one.steps[there[0] + _LOOKS - 1]:,.0f}"


def _mean(runs: NDArray[np.float64]) -> str:
    """Of a single run there is no error to tell."""
    mean, error = mean_and_error(runs)
    return f"{mean:.3f} ± {error:.3f}" if len(runs) > 1 else f"{mean:.3f}"


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    if min(len(one), len(other)) < _VERDICT:
        return "too few seeds"
    return "no" if interquartile_mean(one).overlaps(interquartile_mean(other)) else "yes"


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
