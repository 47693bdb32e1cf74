"""Tables in Markdown: the results of each curve, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.curves import CurveResults
from experiments.statistics import (
    area_under_curve,
    interquartile_mean,
    mean_and_error,
    probability_of_improvement,
)

_SMOOTHING = 5  # evaluations to average over: a single one of 32 episodes is too noisy
_MIN_RUNS_TO_COMPARE = 5  # runs of both curves: with fewer an interval is little more than the range of the runs

_HEADINGS = (
    "curve",
    "seeds",
    "experts' win rate",
    "win rate after training, mean ± standard error",
    "the same with greedy actions",
    "area under the curve, mean ± standard error",
    "area under the curve, interquartile mean [95 %]",
    "probability that the area exceeds the baseline's [95 %]",
    "intervals do not overlap with the baseline's",
    f"steps until the win rate reaches the baseline's at the end (mean of {_SMOOTHING} evaluations)",
    "episode length at the end",
    "hours",
    "commits",
)
_HEADINGS_OVER_SCENARIOS = (
    "curve",
    "seeds in total",
    "win rate after training, mean over scenarios of the interquartile mean [95 %]",
    "area under the curve, mean over scenarios of the interquartile mean [95 %]",
    "scenarios whose area exceeds the baseline's",
)


def panel_table(name: str, curves: list[CurveResults], baseline: str = "ippo") -> str:
    """The table of one panel. The area under the curve is the mean win rate, or return, over training.

    Args:
        name: The panel's name.
        curves: Its curves.
        baseline: The slug of the curve to compare with.
    """
    areas = {one.curve.slug: area_under_curve(one.steps, one.scores) for one in curves}
    baselines = [one for one in curves if one.curve.slug == baseline]
    returns = any(one.measure == "return" for one in curves)
    headings = [heading.replace("win rate", "return") for heading in _HEADINGS] if returns else _HEADINGS
    lines = [f"### {name}", "", row(headings), row("---" for _ in headings)]
    for one in curves:
        area = areas[one.curve.slug]
        compared = baseline in areas and one.curve.slug != baseline
        lines.append(
            row(
                (
                    one.label,
                    len(one.final),
                    "" if one.expert_score is None else f"{one.expert_score:.3f}",
                    _mean(one.final),
                    "" if one.greedy is None else _mean(one.greedy),
                    _mean(area),
                    interquartile_mean(area),
                    probability_of_improvement(area, areas[baseline]) if compared else "",
                    apart(area, areas[baseline]) if compared else "",
                    _steps_until(one, baselines[0]) if baselines else "",
                    f"{one.lengths[:, -1].mean():.0f}",
                    f"{one.seconds / 3600:.2f}",
                    ", ".join(one.commits),
                )
            )
        )
    return "\n".join(lines) + "\n"


def scenarios_table(panels: Sequence[tuple[str, Sequence[CurveResults]]], baseline: str) -> str:
    """One table over all scenarios, with the curves that every scenario has.

    Args:
        panels: Scenarios and their curves.
        baseline: The label of the curve to compare with.

    Returns:
        The table, of scenarios with win rates; empty if there are not several of them and several shared curves, or if
        labels are ambiguous.
    """
    panels = [panel for panel in panels if all(one.measure == "win_rate" for one in panel[1])]
    if not panels:
        return ""
    areas = [{one.curve.label: area_under_curve(one.steps, one.scores) for one in curves} for _, curves in panels]
    finals = [{one.curve.label: one.final for one in curves} for _, curves in panels]
    unambiguous = all(len(labels) == len(curves) for labels, (_, curves) in zip(areas, panels, strict=True))
    shared = [label for label in areas[0] if all(label in each for each in areas)]
    if len({scenario for scenario, _ in panels}) < max(2, len(panels)) or len(shared) < 2 or not unambiguous:
        return ""
    scenarios = ", ".join(scenario for scenario, _ in panels)
    lines = [
        f"### All scenarios: {scenarios}",
        "",
        row(_HEADINGS_OVER_SCENARIOS),
        row("---" for _ in _HEADINGS_OVER_SCENARIOS),
    ]
    for label in shared:
        above = ""
        if baseline in shared and label != baseline:
            better = (interquartile_mean(each[label]).value > interquartile_mean(each[baseline]).value for each in areas)
            above = f"{sum(map(bool, better))} of {len(areas)}"
        won, area = (interquartile_mean(*(each[label] for each in groups)) for groups in (finals, areas))
        lines.append(row((label, sum(len(each[label]) for each in areas), won, area, above)))
    return "\n".join(lines) + "\n"


def row(cells: Iterable[object]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    """Whether the intervals of two curves' areas do not overlap, in a word or two."""
    if min(len(one), len(other)) < _MIN_RUNS_TO_COMPARE:
        return "too few seeds"
    return "no" if interquartile_mean(one).overlaps(interquartile_mean(other)) else "yes"


def _steps_until(one: CurveResults, baseline: CurveResults) -> str:
    """The first step at which the smoothed win rate reaches the baseline's last smoothed win rate."""
    own, target = (
        np.convolve(each.scores.mean(axis=0), np.full(_SMOOTHING, 1 / _SMOOTHING), "valid") for each in (one, baseline)
    )
    if min(len(one.steps), len(baseline.steps)) < _SMOOTHING or target[-1] == 0:
        return ""
    reached = np.flatnonzero(own >= target[-1])
    if not len(reached):
        return "not within the run"
    # The first smoothed value covers several evaluations: the win rate may have been reached before the last of them.
    return ("at most " if reached[0] == 0 else "") + f"{one.steps[reached[0] + _SMOOTHING - 1]:,.0f}"


def _mean(runs: NDArray[np.float64]) -> str:
    """Mean and standard error; a single run has no error."""
    mean, error = mean_and_error(runs)
    return f"{mean:.3f} ± {error:.3f}" if len(runs) > 1 else f"{mean:.3f}"
