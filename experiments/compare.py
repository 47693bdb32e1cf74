"""Compare single runs: a table with their results and the settings that differ, and a figure with their curves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from dm2_wrappers._files import replacing
from experiments.figures import COLORS
from experiments.run_files import RunFolderError, read_config, read_evaluations, read_final, require_all_evaluations
from experiments.statistics import area_under_curve
from experiments.tables import row

_NOT_SETTINGS = ("run", "bar_position")  # where a run is kept and how it is shown
_LABELS = {"win_rate": "test win rate", "return": "mean return of test episodes"}


@dataclass(frozen=True)
class SingleRun:
    """One run as its folder holds it.

    Attributes:
        folder: The folder.
        settings: ``config.json``, with names such as ``learner.gamma``.
        evaluations: The rows of ``evaluations.csv``.
        final: ``final.json``; None before the end of the run.
    """

    folder: Path
    settings: dict[str, Any]
    evaluations: list[dict[str, float]]
    final: dict[str, float] | None


def read_run(folder: Path) -> SingleRun:
    """Read the folder of a run of ``examples/ippo_sb3.py`` or ``examples/qmix_torchrl.py``.

    Raises:
        RunFolderError: The folder holds no run, the run has no evaluation yet, or a file is damaged.
    """
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is no folder: expected the folder of a run, such as runs/dm2_smax_5m_vs_6m_seed0")
    if not (folder / "config.json").is_file() and (seeds := sorted(folder.glob("seed*/config.json"))):
        raise RunFolderError(
            f"{folder} holds runs with several seeds: give the folder of one run, such as {seeds[0].parent}"
        )
    settings = {key: value for key, value in _flat(read_config(folder)).items() if key not in _NOT_SETTINGS}
    rows, final = read_evaluations(folder), read_final(folder)
    if not rows:
        raise RunFolderError(f"{folder} has no evaluation yet: wait for its first one, or start the run again")
    if final is not None:
        require_all_evaluations(folder, rows, final)
    return SingleRun(folder, settings, rows, final)


def compared_measure(runs: Sequence[SingleRun]) -> str:
    """The measure to compare: "win_rate" if every evaluation of every run has it, otherwise "return".

    Raises:
        RunFolderError: A run has neither for all its evaluations.
    """
    for measure in _LABELS:
        if all(measure in evaluation for run in runs for evaluation in run.evaluations):
            return measure
    folders = ", ".join(str(run.folder) for run in runs)
    raise RunFolderError(f"the runs have neither win rates nor returns in common: compare other runs than {folders}")


def comparison_table(runs: Sequence[SingleRun]) -> str:
    """A Markdown table with one line per run.

    The area is the mean over training up to the last step that all runs reached, so unfinished runs can be compared.
    """
    measure = compared_measure(runs)
    end = min(run.evaluations[-1]["step"] for run in runs)
    different = differing_settings(runs)
    name = measure.replace("_", " ")
    headings = (
        "run",
        "steps",
        f"area: mean {name} to step {end:,}",
        f"last {name}",
        f"best {name} (step)",
        f"{name} after training (episodes)",
        *different,
    )
    lines = [row(headings), row("---" for _ in headings)]
    for run in runs:
        best = max(run.evaluations, key=lambda evaluation: evaluation[measure])
        after = "" if run.final is None or measure not in run.final else f"{run.final[measure]:.3f}"
        if after and "episodes" in (run.final or {}):
            after += f" ({run.final['episodes']:.0f})"  # type: ignore[index]
        lines.append(
            row(
                (
                    run.folder,
                    f"{run.evaluations[-1]['step']:,}",
                    f"{area_until(run, measure, end):.3f}",
                    f"{run.evaluations[-1][measure]:.3f}",
                    f"{best[measure]:.3f} ({best['step']:,})",
                    after,
                    *(_text(run.settings, setting) for setting in different),
                )
            )
        )
    return "\n".join(lines) + "\n"


def area_until(run: SingleRun, measure: str, end: float) -> float:
    """The mean of the curve from its first evaluation to ``end``, between evaluations interpolated linearly."""
    steps = np.array([evaluation["step"] for evaluation in run.evaluations], dtype=np.float64)
    values = np.array([evaluation[measure] for evaluation in run.evaluations], dtype=np.float64)
    kept = steps < end
    if not kept.any():  # one evaluation
        return float(values[0])
    steps_to_end = np.append(steps[kept], end)
    values_to_end = np.append(values[kept], np.interp(end, steps, values))
    return float(area_under_curve(steps_to_end, values_to_end[None])[0])


def differing_settings(runs: Sequence[SingleRun]) -> list[str]:
    """The names of the settings that are not equal in all runs."""
    names = dict.fromkeys(itertools.chain.from_iterable(run.settings for run in runs))
    return [name for name in names if len({_text(run.settings, name) for run in runs}) > 1]


def draw_comparison(runs: Sequence[SingleRun], path: Path) -> None:
    """Draw the runs' evaluations over steps, with the standard errors of the evaluations where they are known."""
    measure = compared_measure(runs)
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for run, color in zip(runs, itertools.cycle(COLORS), strict=False):
        steps = np.array([evaluation["step"] for evaluation in run.evaluations]) / 1e6
        values = np.array([evaluation[measure] for evaluation in run.evaluations])
        errors = np.array([evaluation.get(f"{measure}_se", np.nan) for evaluation in run.evaluations])
        axes.plot(steps, values, color=color, label=str(run.folder), marker="o" if len(steps) == 1 else None)
        axes.fill_between(steps, values - errors, values + errors, color=color, alpha=0.18, linewidth=0)
    axes.set(xlabel="environment steps (millions)", ylabel=_LABELS[measure])
    if measure == "win_rate":
        axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower left", frameon=False, fontsize=8)
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), dpi=150)
    plt.close(figure)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"learner": {"gamma": 0.99}}`` as ``{"learner.gamma": 0.99}``."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _text(settings: dict[str, Any], name: str) -> str:
    """A setting as the table shows it; empty where a run does not have it."""
    return str(settings[name]).replace("|", "\\|") if name in settings else ""
