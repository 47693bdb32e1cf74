"""Compare single runs: tables of their results and of the settings that differ, and a figure with their curves."""

from __future__ import annotations

import itertools
import os
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


def results_table(runs: Sequence[SingleRun]) -> str:
    """A Markdown table with one line per run.

    The area is the mean over training up to the last step that all runs reached, so unfinished runs can be compared.
    """
    measure = compared_measure(runs)
    end = min(run.evaluations[-1]["step"] for run in runs)
    name = measure.replace("_", " ")
    headings = (
        "run",
        "steps",
        f"area: mean {name} to step {end:,}",
        f"last {name}",
        f"best {name} (step)",
        f"{name} after training (episodes)",
    )
    lines = [row(headings), row("---" for _ in headings)]
    for label, run in zip(labels(runs), runs, strict=True):
        best = max(run.evaluations, key=lambda evaluation: evaluation[measure])
        final = run.final or {}
        after = f"{final[measure]:.3f} ({final.get('episodes', 0):.0f})" if measure in final else ""
        lines.append(
            row(
                (
                    label,
                    f"{run.evaluations[-1]['step']:,}",
                    f"{area_until(run, measure, end):.3f}",
                    f"{run.evaluations[-1][measure]:.3f}",
                    f"{best[measure]:.3f} ({best['step']:,})",
                    after,
                )
            )
        )
    return "\n".join(lines) + "\n"


def settings_table(runs: Sequence[SingleRun]) -> str:
    """A Markdown table of the settings that differ, with one column per run; empty if none differ.

    Settings that not every run has, because the runs are of different programs or versions, are listed below the table.
    """
    names = dict.fromkeys(itertools.chain.from_iterable(run.settings for run in runs))
    shared = [name for name in names if all(name in run.settings for run in runs)]
    different = [name for name in shared if any(run.settings[name] != runs[0].settings[name] for run in runs)]
    missing = ", ".join(name for name in names if name not in shared)
    lines = []
    if different:
        headings = ("setting", *labels(runs))
        lines += [row(headings), row("---" for _ in headings)]
        lines += [row((name, *(str(run.settings[name]).replace("|", "\\|") for run in runs))) for name in different]
    if missing:
        lines += [*([""] if lines else []), f"Settings that not every config.json has: {missing}"]
    return "\n".join([*lines, ""])


def labels(runs: Sequence[SingleRun]) -> list[str]:
    """The runs' folders without the part that all have in common."""
    folders = [run.folder.resolve() for run in runs]
    if len(set(folders)) < len(folders) or len(folders) == 1:
        return [str(run.folder) for run in runs]
    common = Path(os.path.commonpath([folder.parent for folder in folders]))
    return [str(folder.relative_to(common)) for folder in folders]


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


def draw_comparison(runs: Sequence[SingleRun], path: Path) -> None:
    """Draw the runs' evaluations over steps, with the standard errors of the evaluations where they are known."""
    measure = compared_measure(runs)
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for run, label, color in zip(runs, labels(runs), itertools.cycle(COLORS), strict=False):
        steps = np.array([evaluation["step"] for evaluation in run.evaluations]) / 1e6
        values = np.array([evaluation[measure] for evaluation in run.evaluations])
        errors = np.array([evaluation.get(f"{measure}_se", np.nan) for evaluation in run.evaluations])
        axes.plot(steps, values, color=color, label=label, marker="o" if len(steps) == 1 else None)
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
