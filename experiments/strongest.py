"""Distribution matching next to the strongest independent PPO of each scenario: which runs these are, and a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers._files import replacing
from experiments.curves import CurveResults
from experiments.plan import Curve, Panel
from experiments.statistics import area_under_curve, interquartile_mean
from experiments.tables import apart, row

Results = Sequence[tuple[Panel, Sequence[CurveResults]]]

_HEADINGS = (
    "scenario",
    "DM2: after training",
    "area, interquartile mean [95 %]",
    "seeds",
    "strongest IPPO: after training",
    "area, interquartile mean [95 %]",
    "seeds",
    "DM2's area is",
    "intervals do not overlap",
)


def pairs(results: Results) -> list[tuple[Panel, CurveResults, CurveResults]]:
    """Each panel's first curve of DM2, and the curve of independent PPO with the largest interquartile mean of the area.

    Independent PPO that begins with clones has demonstrations, so it is no baseline here.

    Panels in which one of the two has no finished run are left out.
    """
    found = []
    for panel, curves in results:
        first = next((curve.slug for curve in panel.curves if curve.options.get("algorithm") != "ippo"), None)
        ours = [each for each in curves if each.curve.slug == first]
        baselines = [each for each in curves if _independent(each.curve)]
        if ours and baselines:
            found.append((panel, ours[0], max(baselines, key=_area)))
    return found


def runs_of_pairs(results: Results, root: Path, backend: str = "smax") -> dict[str, dict[str, str]]:
    """Where the runs of `pairs` are.

    Returns:
        ``{scenario: {"dm2": folder, "ippo": folder}}``, folders below ``root``, that of all results. A folder has one folder
        per seed.
    """
    return {
        panel.scenario: {
            name: (root / "runs" / panel.folder(backend) / each.curve.slug).as_posix()
            for name, each in (("dm2", ours), ("ippo", strongest))
        }
        for panel, ours, strongest in pairs(results)
    }


def write_runs(runs: dict[str, dict[str, str]], path: Path) -> Path:
    """Write them as JSON."""
    with replacing(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(runs, indent=1) + "\n")
    return path


def with_its_settings(results: Results) -> list[tuple[Panel, CurveResults, CurveResults]]:
    """`pairs`, but DM2 is also trained with the settings of the strongest independent PPO, such as its learning rate.

    Panels without finished runs of this are left out.
    """
    curves = {panel.scenario: curves for panel, curves in results}
    found = []
    for panel, ours, strongest in pairs(results):
        options = {**ours.curve.options, **_without_algorithm(strongest.curve)}
        same = [each for each in curves[panel.scenario] if each.curve.options == options]
        found += [(panel, each, strongest) for each in same if each.curve.demos == ours.curve.demos]
    return found


def strongest_table(results: Results) -> str:
    """One line per scenario, and their mean over the scenarios with win rates; then the same `with_its_settings`."""
    of_default, same = pairs(results), with_its_settings(results)
    text = _table("The default setting and the strongest independent PPO", of_default)
    if {each.curve.slug for _, each, _ in same} - {ours.curve.slug for _, ours, _ in of_default}:
        text += "\n" + _table("DM2 with the settings of the strongest independent PPO", same)
    return text


def _table(title: str, compared: Sequence[tuple[Panel, CurveResults, CurveResults]]) -> str:
    lines = [f"### {title}", "", row(_HEADINGS), row("---" for _ in _HEADINGS)]
    won = []
    for panel, ours, strongest in compared:
        areas = [area_under_curve(each.steps, each.scores) for each in (ours, strongest)]
        cells: list[object] = [panel.name if ours.measure == "win_rate" else f"{panel.name} (return)"]
        for each, area in zip((ours, strongest), areas, strict=True):
            name = "" if each is ours or each.curve.slug == panel.baseline else f" ({each.label})"
            cells += [f"{each.final.mean():.3f}{name}", interquartile_mean(area), len(area)]
        if ours.measure == "win_rate":
            won.append(areas)
        lines.append(row((*cells, _compared(*areas), apart(*areas))))
    if len(won) > 1:
        ours_all, theirs_all = (interquartile_mean(*group) for group in zip(*won, strict=True))
        ratio = f"{float(ours_all.value / theirs_all.value):.2f} times"
        lines.append(row((f"mean of the {len(won)} with win rates", "", ours_all, "", "", theirs_all, "", ratio, "")))
    return "\n".join(lines) + "\n"


def _without_algorithm(curve: Curve) -> dict[str, Any]:
    return {name: value for name, value in curve.options.items() if name != "algorithm"}


def _independent(curve: Curve) -> bool:
    return curve.options.get("algorithm") == "ippo" and curve.demos is None


def _compared(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> str:
    """How many times as large our area is, or, if they are not both positive, which one is larger."""
    first, second = (float(interquartile_mean(each).value) for each in (ours, theirs))
    if min(first, second) > 0:
        return f"{first / second:.2f} times"
    return "higher" if first > second else "lower"


def _area(curve: CurveResults) -> float:
    return float(interquartile_mean(area_under_curve(curve.steps, curve.scores)).value)
