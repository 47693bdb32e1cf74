"""What an experiment is made of: curves, panels, runs, and where each run's files lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FIRST_SEED = 100  # of the runs: those of the demonstrators' trainings are below, so no run begins as its demonstrators did
QUICK_STEPS = 400_000
IPPO, QMIX = "ippo_sb3.py", "qmix_torchrl.py"


@dataclass(frozen=True)
class Curve:
    """Runs that differ in their seed only.

    Attributes:
        label: In the legend.
        slug: Names the runs' folder; equal slugs of one scenario are the same runs.
        options: Of the program, as on its command line.
        demos: The demonstrations' file, relative to the folder of the scenario's demonstrations; see `demos_path`.
        program: The example that does the run.
        seeds: How many, unless the command line says otherwise.
        x: Where it stands in the experiment's summary; None where that is its demonstrators' win rate, or it has none.
    """

    label: str
    slug: str
    options: Mapping[str, Any] = field(default_factory=dict)
    demos: str | None = None
    program: str = IPPO
    seeds: int = 5
    x: float | None = None


@dataclass(frozen=True)
class Panel:
    """One scenario: its curves, the environment steps of every run, and the slug of the curve to compare with."""

    scenario: str
    curves: tuple[Curve, ...]
    steps: int = 1_000_000
    title: str = ""
    baseline: str = "ippo"

    @property
    def name(self) -> str:
        """Its title, or else the scenario."""
        return self.title or self.scenario


@dataclass(frozen=True)
class Experiment:
    """One figure, and where its curves are levels of one thing a second one: what was won as a function of that.

    Attributes:
        title: Of the figure.
        panels: From left to right.
        levels_of: What that thing is called; empty: no second figure.
        lengths: Whether episodes' lengths are drawn, too.
        smax_only: Why it would not be the same on another backend; empty: it would.
    """

    title: str
    panels: tuple[Panel, ...]
    levels_of: str = ""
    lengths: bool = False
    smax_only: str = ""


@dataclass(frozen=True)
class Run:
    """One training: a curve's settings with a seed."""

    panel: Panel
    curve: Curve
    seed: int
    env: str  # backend:scenario
    root: Path  # where results go

    @property
    def folder(self) -> Path:
        """Where everything of this run lies."""
        return self.root / "runs" / self.env.replace(":", "_") / self.curve.slug / f"seed{self.seed}"

    @property
    def options(self) -> dict[str, Any]:
        """All options of the program but the run's folder."""
        options = {"env": self.env, "steps": self.panel.steps, "seed": self.seed, **self.curve.options}
        if self.curve.demos is not None:
            options["demos"] = demos_path(self.env, self.curve.demos)
        return options


def demos_path(env: str, name: str) -> Path:
    """``seed0/win30`` of smax:5m_vs_6m is ``demos_data/full/smax_5m_vs_6m/seed0/smax_5m_vs_6m_win30.npz``.

    A name without a folder is a file that the repository holds; of SMAC it holds none, there the first training's is meant.
    """
    env_name = env.replace(":", "_")
    folder, _, level = name.rpartition("/")
    folder = folder or ("" if env.startswith("smax:") else "seed0")
    base = Path("demos_data") / "full" / env_name / folder if folder else Path("demos_data")
    return base / f"{env_name}_{level}.npz"


def quick(experiment: Experiment) -> Experiment:
    """A small honest version: fewer steps, two seeds, demonstrations that the repository holds, so fewer curves."""
    panels = []
    for panel in experiment.panels:
        curves = tuple(
            replace(curve, seeds=2)
            for curve in panel.curves
            if "/" not in (curve.demos or "") and not curve.options.get("recurrent")  # which is slow
        )
        # Of several demonstrations two have to be left, or there is nothing to compare.
        wanted, left = ({curve.demos for curve in each} - {None} for each in (panel.curves, curves))
        if curves and len(left) >= min(2, len(wanted)):
            panels.append(replace(panel, curves=curves, steps=min(panel.steps, QUICK_STEPS)))
    return replace(experiment, panels=tuple(panels))


def runs(experiment: Experiment, root: Path, *, backend: str = "smax", seeds: int | None = None) -> list[Run]:
    """All runs, each once: first one seed of every curve, then the next, so that half a grid is half of each curve."""
    found: dict[Path, Run] = {}
    most = max((seeds or curve.seeds for panel in experiment.panels for curve in panel.curves), default=0)
    for seed in range(most):
        for panel in experiment.panels:
            for curve in panel.curves:
                if seed < (seeds or curve.seeds):
                    run = Run(panel, curve, FIRST_SEED + seed, f"{backend}:{panel.scenario}", root)
                    found.setdefault(run.folder, run)
    return list(found.values())
