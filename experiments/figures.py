"""Figures with one panel per scenario: mean ± standard error as in the paper, and interquartile mean with 95 % interval."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from dm2_wrappers._files import replacing
from experiments.curves import CurveResults
from experiments.statistics import Estimate, area_under_curve, interquartile_mean, mean_and_band, mean_and_error

# Okabe and Ito's colors, which color-blind readers can tell apart. Curves that are levels of one quantity use a scale.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
GREY = "#777777"
_MOST_IN_A_ROW = 5

Panels: TypeAlias = list[tuple[str, list[CurveResults]]]


def draw_curves(title: str, panels: Panels, path: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Draw win rates, or returns, over steps.

    ``<path>.png`` has means ± standard errors and ``<path>_iqm.png`` interquartile means.

    Args:
        title: The figure's title.
        panels: Each panel's name and curves.
        path: Where to write, without an ending.
        formats: "png", "pdf" or both.

    Returns:
        The files.
    """
    written = []
    for suffix, interquartile in (("", False), ("_iqm", True)):
        end = ", interquartile mean" if interquartile else ""
        figure, row = _axes(title, len(panels), "test win rate" + end, shared=not any(map(_of_returns, panels)))
        for axes, (name, curves), colors in zip(row, panels, _palette(panels), strict=True):
            _panel(axes, name, curves, colors, interquartile=interquartile)
            if _of_returns((name, curves)):
                axes.set_ylabel("mean return of test episodes" + end)
        written += _save(figure, path.with_name(f"{path.name}{suffix}"), formats)
    return written


def draw_lengths(title: str, panels: Panels, path: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Draw the length of test episodes over steps; arguments and result as of `draw_curves`."""
    figure, row = _axes(title, len(panels), "length of test episodes in steps, mean ± standard error")
    for axes, (name, curves), colors in zip(row, panels, _palette(panels), strict=True):
        _curves(axes, curves, colors, [mean_and_band(one.lengths) for one in curves])
        _finish(axes, name, _STEPS, top=None)
    return _save(figure, path, formats)


def draw_levels(title: str, label: str, panels: Panels, path: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Draw the win rate after training and its mean over training as functions of the curves' levels.

    Curves without a level are horizontal lines. If no curve has a level, the level is the experts' win rate, and a
    diagonal shows where a team is as good as its experts. Other levels have a logarithmic axis.

    Args:
        title: The figure's title.
        label: What the levels are.
        panels: Each panel's name and curves.
        path: Where to write, without an ending.
        formats: "png", "pdf" or both.

    Returns:
        The files.
    """
    figure, row = _axes(title, len(panels), "test win rate, mean ± standard error")
    for axes, (name, curves) in zip(row, panels, strict=True):
        by_experts = not any(one.curve.level is not None for one in curves) and any(one.expert_score for one in curves)
        levels = [(one.expert_score if by_experts else one.curve.level, one) for one in curves]
        leveled = sorted(((level, one) for level, one in levels if level is not None), key=lambda each: each[0])
        for number, (measure, values) in enumerate(_MEASURES.items() if leveled else ()):
            points = [(level, *mean_and_error(values(one))) for level, one in leveled]
            x, mean, error = (np.array(column) for column in zip(*points, strict=True))
            axes.errorbar(
                x, mean, error, color=COLORS[number], marker="o", capsize=3, linewidth=1.5, label=measure, zorder=3
            )
            single = np.isnan(error)
            axes.plot(x[single], mean[single], "o", color=COLORS[number], markerfacecolor="white", zorder=4)
        if any(len(one.final) == 1 for _, one in leveled):
            axes.plot([], [], "o", color=GREY, markerfacecolor="white", label="one seed")
        others = [one for level, one in levels if level is None]
        for number, one in enumerate(others, start=len(_MEASURES)):
            won, error_of_won = map(float, mean_and_error(one.final))
            axes.axhline(won, color=COLORS[number], linestyle="--", label=f"{one.label}, after training", zorder=2)
            if len(one.final) > 1:
                axes.axhspan(won - error_of_won, won + error_of_won, color=COLORS[number], alpha=0.15, linewidth=0, zorder=1)
        if by_experts:
            axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="as good as its experts")
            axes.set_xlim(0, 1)
        elif leveled:
            axes.set_xscale("log")
        _finish(axes, name, label)
    return _save(figure, path, formats)


_MEASURES: dict[str, Callable[[CurveResults], NDArray[np.float64]]] = {
    "after training": lambda one: one.final,
    "mean over training": lambda one: area_under_curve(one.steps, one.scores),
}


def _of_returns(panel: tuple[str, list[CurveResults]]) -> bool:
    return any(one.measure == "return" for one in panel[1])


def _axes(title: str, panels: int, ylabel: str, *, shared: bool = True) -> tuple[Figure, list[Axes]]:
    """The panels' axes in reading order, in as few rows of at most five as possible."""
    rows = -(-panels // _MOST_IN_A_ROW)
    columns = -(-panels // rows)
    figure, grid = plt.subplots(
        rows, columns, figsize=(5.2 * columns, 5.2 * rows), layout="constrained", sharey=shared, squeeze=False
    )
    for first in grid[:, 0]:
        first.set_ylabel(ylabel)
    axes = list(grid.flat)
    for unused in axes[panels:]:
        unused.remove()
    figure.suptitle(textwrap.fill(title, 48 * columns))
    return figure, axes[:panels]


def _save(figure: Figure, path: Path, formats: Sequence[str]) -> list[Path]:
    """Write the files without a date in them, so equal results make equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(f"{path.name}.{ending}") for ending in formats]
    for file, ending in zip(written, formats, strict=True):
        with replacing(file) as out:
            figure.savefig(out, format=ending, dpi=150, metadata=_WITHOUT_DATE[ending])
    plt.close(figure)
    return written


_WITHOUT_DATE: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None},
}


_STEPS = "environment steps (millions)"


def _panel(axes: Axes, name: str, curves: list[CurveResults], colors: list[Any], *, interquartile: bool) -> None:
    middle = interquartile_mean if interquartile else mean_and_band
    _curves(axes, curves, colors, [middle(one.scores) for one in curves])
    levels: dict[float, Any] = {}
    for one, color in zip(curves, colors, strict=True):
        if one.expert_score is not None:
            levels.setdefault(one.expert_score, color)
    for level, color in levels.items():
        axes.axhline(level, color=color if len(levels) > 1 else GREY, linestyle=":", linewidth=1.2, zorder=1)
    if levels:
        axes.plot([], [], color=GREY, linestyle=":", linewidth=1.2, label="experts")
    if _of_returns((name, curves)):
        _finish(axes, name, _STEPS, bottom=None, top=None)
    else:
        _finish(axes, name, _STEPS)


def _curves(axes: Axes, curves: list[CurveResults], colors: list[Any], estimates: list[Estimate]) -> None:
    """Draw a line with a band for each curve."""
    scaled = _are_levels(curves)
    for number, (one, estimate, color) in enumerate(zip(curves, estimates, colors, strict=True)):
        runs, steps = len(one.final), one.steps / 1e6
        label = f"{one.label} ({runs} seed{'s' if runs > 1 else ''})"
        style = "--" if scaled and not _is_level(one) else "-"
        axes.plot(steps, estimate.value, style, color=color, linewidth=1.8, label=label, zorder=3 + number)
        axes.fill_between(steps, estimate.low, estimate.high, color=color, alpha=0.18, linewidth=0, zorder=2)
    axes.set_xlim(left=0)


def _finish(axes: Axes, title: str, xlabel: str, *, bottom: float | None = 0, top: float | None = 1) -> None:
    axes.set(title=title, xlabel=xlabel, ylim=(bottom, top))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    # The legend goes below the axes, where it hides no curve. The distance is in inches, so that it clears the axis
    # label even where a long legend makes the axes smaller.
    below = axes.transAxes + ScaledTranslation(0, -0.45, axes.figure.dpi_scale_trans)
    columns = 2 if len(axes.get_legend_handles_labels()[0]) > len(COLORS) else 1
    axes.legend(
        frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, ncols=columns, borderpad=0
    )


def _palette(panels: Panels) -> list[list[Any]]:
    """The colors of each panel's curves. Equal labels have equal colors in all panels, if there are enough colors."""
    names = [_distinct(curves) for _, curves in panels]
    all_names = list(dict.fromkeys(itertools.chain.from_iterable(names)))
    palette = []
    for (_, curves), own in zip(panels, names, strict=True):
        if _are_levels(curves):
            scale = iter(mpl.colormaps["viridis"](np.linspace(0, 0.95, sum(map(_is_level, curves)))))
            others = itertools.cycle(("#000000", "#D55E00"))
            palette.append([next(scale) if _is_level(one) else next(others) for one in curves])
        else:
            order = all_names if len(all_names) <= len(COLORS) else own
            palette.append([COLORS[order.index(name)] for name in own])
    return palette


def _distinct(curves: list[CurveResults]) -> list[tuple[str, int]]:
    """Labels, each with the number of equal labels before it."""
    labels = [one.curve.label for one in curves]
    return [(label, labels[:number].count(label)) for number, label in enumerate(labels)]


def _are_levels(curves: list[CurveResults]) -> bool:
    """Whether to color the curves by a scale: they are levels of a number, or too many for distinct colors."""
    return len(curves) > len(COLORS) or any(one.curve.level is not None for one in curves)


def _is_level(one: CurveResults) -> bool:
    """Whether the curve is one of several levels and not a baseline."""
    return one.curve.level is not None or one.expert_score is not None
