"""Figures: a panel for each scenario, mean ± standard error as in the paper and interquartile mean with 95 % interval."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from experiments.curves import Measured
from experiments.statistics import Estimate, area_under_curve, interquartile_mean, mean_and_band, mean_and_error

# Okabe and Ito's colours, told apart by colour-blind readers too; a scale where curves are levels of one thing.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
GREY = "#777777"


def draw(title: str, panels: list[tuple[str, list[Measured]]], path: Path) -> None:
    """Write ``<path>.png`` and ``.pdf`` (mean ± standard error) and ``<path>_iqm.png`` and ``.pdf``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, interquartile in (("", False), ("_iqm", True)):
        figure, row = _row_of_axes(
            title, len(panels), "test battles won" + (", interquartile mean" if interquartile else "")
        )
        for axes, (name, curves), colours in zip(row, panels, _palette(panels), strict=True):
            _panel(axes, name, curves, colours, interquartile=interquartile)
        _save(figure, path.with_name(f"{path.name}{suffix}"))


def draw_lengths(title: str, panels: list[tuple[str, list[Measured]]], path: Path) -> None:
    """Write ``<path>.png`` and ``.pdf``: how long the test episodes are."""
    figure, row = _row_of_axes(title, len(panels), "steps of a test episode, mean ± standard error")
    for axes, (name, curves), colours in zip(row, panels, _palette(panels), strict=True):
        _curves(axes, curves, colours, [mean_and_band(one.lengths) for one in curves])
        _finish(axes, name, _STEPS, top=None)
    _save(figure, path)


def draw_levels(title: str, levels_of: str, panels: list[tuple[str, list[Measured]]], path: Path) -> None:
    """Write ``<path>.png`` and ``.pdf``: what the runs of each level won after training, and on the way.

    Curves without a level are lines from side to side; c and numbers of minibatches are drawn on a logarithmic scale,
    demonstrators' win rates beside the line on which a team wins what its demonstrators won.
    """
    figure, row = _row_of_axes(title, len(panels), "test battles won, mean ± standard error")
    for axes, (name, curves) in zip(row, panels, strict=True):
        of_quality = not any(one.curve.x is not None for one in curves) and any(one.demonstrators for one in curves)
        levels = [(one.demonstrators if of_quality else one.curve.x, one) for one in curves]
        leveled = sorted(((x, one) for x, one in levels if x is not None), key=lambda each: each[0])
        for number, (label, value) in enumerate(_WON.items() if leveled else ()):
            shown = [(x, *mean_and_error(value(one))) for x, one in leveled]
            x, mean, error = (np.array(column) for column in zip(*shown, strict=True))
            axes.errorbar(x, mean, error, color=COLOURS[number], marker="o", capsize=3, linewidth=1.5, label=label, zorder=3)
            single = np.isnan(error)
            axes.plot(x[single], mean[single], "o", color=COLOURS[number], markerfacecolor="white", zorder=4)
        if any(len(one.final) == 1 for _, one in leveled):
            axes.plot([], [], "o", color=GREY, markerfacecolor="white", label="one seed")
        others = [one for x, one in levels if x is None]
        for number, one in enumerate(others, start=len(_WON)):
            won, spread = map(float, mean_and_error(one.final))
            axes.axhline(won, color=COLOURS[number], linestyle="--", label=f"{one.label}, after training", zorder=2)
            if len(one.final) > 1:
                axes.axhspan(won - spread, won + spread, color=COLOURS[number], alpha=0.15, linewidth=0, zorder=1)
        if of_quality:
            axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="as good as its demonstrators")
            axes.set_xlim(0, 1)
        elif leveled:
            axes.set_xscale("log")
        _finish(axes, name, levels_of)
    _save(figure, path)


_WON: dict[str, Callable[[Measured], NDArray[np.float64]]] = {
    "after training": lambda one: one.final,
    "mean over training": lambda one: area_under_curve(one.steps, one.win_rates),
}


def _row_of_axes(title: str, panels: int, ylabel: str) -> tuple[Figure, Sequence[Axes]]:
    figure, row = plt.subplots(1, panels, figsize=(5.2 * panels, 5.2), layout="constrained", sharey=True, squeeze=False)
    row[0][0].set_ylabel(ylabel)
    figure.suptitle(textwrap.fill(title, 48 * panels))
    return figure, row[0]


def _save(figure: Figure, path: Path) -> None:
    """Without a date in it the same results make the same file."""
    for ending in ("png", "pdf"):
        figure.savefig(path.with_name(f"{path.name}.{ending}"), dpi=150, metadata=_UNDATED[ending])
    plt.close(figure)


_UNDATED: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}}


_STEPS = "environment steps (millions)"


def _panel(axes: Axes, name: str, curves: list[Measured], colours: list[Any], *, interquartile: bool) -> None:
    middle = interquartile_mean if interquartile else mean_and_band
    _curves(axes, curves, colours, [middle(one.win_rates) for one in curves])
    levels: dict[float, Any] = {}
    for one, colour in zip(curves, colours, strict=True):
        if one.demonstrators is not None:
            levels.setdefault(one.demonstrators, colour)
    for level, colour in levels.items():
        axes.axhline(level, color=colour if len(levels) > 1 else GREY, linestyle=":", linewidth=1.2, zorder=1)
    if levels:
        axes.plot([], [], color=GREY, linestyle=":", linewidth=1.2, label="demonstrators")
    _finish(axes, name, _STEPS)


def _curves(axes: Axes, curves: list[Measured], colours: list[Any], estimates: list[Estimate]) -> None:
    """A line with its band for each curve over the steps."""
    scaled = _are_levels(curves)
    for number, (one, of, colour) in enumerate(zip(curves, estimates, colours, strict=True)):
        runs, steps = len(one.final), one.steps / 1e6
        label = f"{one.label} ({runs} seed{'s' if runs > 1 else ''})"
        style = "--" if scaled and not _is_level(one) else "-"
        axes.plot(steps, of.value, style, color=colour, linewidth=1.8, label=label, zorder=3 + number)
        axes.fill_between(steps, of.low, of.high, color=colour, alpha=0.18, linewidth=0, zorder=2)
    axes.set_xlim(left=0)


def _finish(axes: Axes, title: str, xlabel: str, *, top: float | None = 1) -> None:
    axes.set(title=title, xlabel=xlabel, ylim=(0, top))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    # Below the axes, where it hides no curve, by inches: axes that many curves' legend makes lower keep their label.
    below = axes.transAxes + ScaledTranslation(0, -0.45, axes.figure.dpi_scale_trans)
    columns = 2 if len(axes.get_legend_handles_labels()[0]) > len(COLOURS) else 1
    axes.legend(
        frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, ncols=columns, borderpad=0
    )


def _palette(panels: list[tuple[str, list[Measured]]]) -> list[list[Any]]:
    """Each panel's colours: what has the same label has the same colour in all of them, where there are enough."""
    names = [_distinct(curves) for _, curves in panels]
    every = list(dict.fromkeys(itertools.chain.from_iterable(names)))
    palette = []
    for (_, curves), own in zip(panels, names, strict=True):
        if _are_levels(curves):
            scale = iter(mpl.colormaps["viridis"](np.linspace(0, 0.95, sum(map(_is_level, curves)))))
            others = itertools.cycle(("#000000", "#D55E00"))
            palette.append([next(scale) if _is_level(one) else next(others) for one in curves])
        else:
            order = every if len(every) <= len(COLOURS) else own
            palette.append([COLOURS[order.index(name)] for name in own])
    return palette


def _distinct(curves: list[Measured]) -> list[tuple[str, int]]:
    """Labels, with a number where a panel has the same one again."""
    labels = [one.curve.label for one in curves]
    return [(label, labels[:number].count(label)) for number, label in enumerate(labels)]


def _are_levels(curves: list[Measured]) -> bool:
    """Whether a scale tells the curves apart best, since they are levels of a number or too many for distinct colours."""
    return len(curves) > len(COLOURS) or any(one.curve.x is not None for one in curves)


def _is_level(one: Measured) -> bool:
    """Whether it is one of several levels of the same thing, not a baseline."""
    return one.curve.x is not None or one.demonstrators is not None
