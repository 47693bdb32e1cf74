"""Tables and figures of an experiment's finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dm2_wrappers._files import replacing
from experiments.curves import CurveResults, read_panel
from experiments.figures import draw_curves, draw_lengths, draw_levels
from experiments.plan import Experiment, Panel, Run
from experiments.strongest import strongest_table
from experiments.tables import panel_table, scenarios_table

PanelResults = list[tuple[Panel, list[CurveResults]]]


def read_results(experiment: Experiment, runs: list[Run]) -> PanelResults:
    """The panels that have a finished run, with their results.

    Raises:
        RunFolderError: A file of a run is damaged, or the runs of a curve do not belong together.
    """
    panels = [(panel, read_panel(panel, runs)) for panel in experiment.panels]
    return [(panel, curves) for panel, curves in panels if curves]


def tables(experiment: Experiment, results: PanelResults) -> str:
    """A table for each panel, and one over all scenarios where that is possible."""
    texts = [panel_table(panel.name, curves, panel.baseline) for panel, curves in results]
    if experiment.against_strongest:
        return "\n".join([strongest_table(results), *texts])
    baselines = {one.curve.label for panel, curves in results for one in curves if one.curve.slug == panel.baseline}
    together = scenarios_table([(panel.scenario, curves) for panel, curves in results], min(baselines, default=""))
    return "\n".join([*texts, *([together] if together else [])])


def write_report(
    experiment: Experiment, results: PanelResults, path: Path, *, title: str, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write all figures of the experiment, and ``<path>.md`` with its tables.

    Returns:
        The files.
    """
    drawn = [(panel.name, [one for one in curves if one.curve.drawn]) for panel, curves in results]
    panels = [(name, curves) for name, curves in drawn if curves]
    written = draw_curves(title, panels, path, formats)
    if experiment.level_label:
        written += draw_levels(title, experiment.level_label, panels, path.with_name(f"{path.name}_levels"), formats)
    if experiment.plot_lengths:
        written += draw_lengths(title, panels, path.with_name(f"{path.name}_lengths"), formats)
    file = path.with_name(f"{path.name}.md")
    with replacing(file, "w", encoding="utf-8") as out:
        out.write(tables(experiment, results))
    return [*written, file]
