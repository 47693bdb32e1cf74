"""What an experiment is made of: curves, panels and runs, and where the files of each run are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# Experts were trained with seeds below 100, so no reported run starts exactly like the training of its experts.
REPORT_SEED = 100
# Settings are chosen on these seeds, so the reported seeds never take part in the choice.
TUNING_SEED = 0
QUICK_STEPS = 400_000
IPPO, QMIX = "ippo_sb3.py", "qmix_torchrl.py"
# What a curve of `IPPO` does unless its options say otherwise. The program's own defaults may change without changing it.
PLAIN: dict[str, Any] = {"experts": "all", "pretrain": 0, "standardize": False}


@dataclass(frozen=True)
class Curve:
    """Runs that differ only in their seed.

    Attributes:
        label: The name in legends and tables.
        slug: The name of the runs' folder. Curves of one scenario with equal slugs share their runs.
        options: Command-line options of the program.
        demos: The demonstrations, by a name that `demos_path` understands. None for a program without demonstrations.
        program: The file in ``examples/`` that trains.
        seeds: The number of seeds, unless the command line sets another.
        first_seed: The lowest seed; the others follow. `REPORT_SEED` for results, `TUNING_SEED` for choosing settings.
        level: The curve's position on the axis of the summary figure. None if the curve is a baseline, or if the
            position is the experts' win rate.
        drawn: Whether it is in the figures, too, or only in the tables.
    """

    label: str
    slug: str
    options: Mapping[str, Any] = field(default_factory=dict)
    demos: str | None = None
    program: str = IPPO
    seeds: int = 5
    first_seed: int = REPORT_SEED
    level: float | None = None
    drawn: bool = True


@dataclass(frozen=True)
class Panel:
    """One scenario of a figure.

    Attributes:
        scenario: The scenario's name.
        curves: The curves, in the order of the legend.
        steps: Environment steps of each run, summed over sub-environments.
        title: The panel's title; the scenario if empty.
        baseline: The slug of the curve that the others are compared with.
        env: The program's ``--env`` if the environment is not the backend's scenario of that name.
        measure: What is drawn and compared, "win_rate" or, for environments that do not report wins, "return".
    """

    scenario: str
    curves: tuple[Curve, ...]
    steps: int = 1_000_000
    title: str = ""
    baseline: str = "ippo"
    env: str = ""
    measure: str = "win_rate"

    def folder(self, backend: str) -> str:
        """The folder of all its runs."""
        return self.scenario if self.env else f"{backend}_{self.scenario}"

    @property
    def name(self) -> str:
        """The title, or the scenario if there is no title."""
        return self.title or self.scenario


@dataclass(frozen=True)
class Experiment:
    """One figure.

    Attributes:
        title: The figure's title.
        panels: The panels from left to right.
        level_label: What the curves' levels are. If not empty, a summary figure shows results by level.
        plot_lengths: Whether to draw episode lengths, too.
        smax_only: Why the experiment runs on SMAX only; empty if it runs on every backend.
        against_strongest: Whether to compare each panel's first curve of DM2 with its strongest independent PPO.
    """

    title: str
    panels: tuple[Panel, ...]
    level_label: str = ""
    plot_lengths: bool = False
    smax_only: str = ""
    against_strongest: bool = False


@dataclass(frozen=True)
class Run:
    """One training: a curve's settings with one seed.

    Attributes:
        panel: The panel that the run belongs to.
        curve: The curve that the run belongs to.
        seed: The seed.
        backend: "smax" or "smac".
        root: The folder of all results.
    """

    panel: Panel
    curve: Curve
    seed: int
    backend: str
    root: Path

    @property
    def env(self) -> str:
        """The program's ``--env``."""
        return self.panel.env or f"{self.backend}:{self.panel.scenario}"

    @property
    def folder(self) -> Path:
        """The folder of this run's files."""
        return self.root / "runs" / self.panel.folder(self.backend) / self.curve.slug / f"seed{self.seed}"

    @property
    def arguments(self) -> dict[str, Any]:
        """All options as the program is given them, also those of `PLAIN`."""
        return {**self.options, **{k: v for k, v in PLAIN.items() if self.curve.program == IPPO and k not in self.options}}

    @property
    def options(self) -> dict[str, Any]:
        """The options that make this run what it is, except the folder and those of `PLAIN`."""
        options = {"env": self.env, "steps": self.panel.steps, "seed": self.seed, **self.curve.options}
        if self.curve.demos is not None:
            options["demos"] = demos_path(self.panel.scenario if self.panel.env else self.env, self.curve.demos)
        return options


def demos_path(env: str, name: str) -> Path:
    """``seed0/win30`` of smax:5m_vs_6m is ``demos_data/full/smax_5m_vs_6m/seed0/smax_5m_vs_6m_win30.npz``.

    A name without a folder is a file in the repository: ``win30`` is then ``demos_data/smax_5m_vs_6m_win30.npz``. The
    repository has no files of SMAC; there such a name means the file of the first training.
    """
    env_name = env.replace(":", "_")
    folder, _, level = name.rpartition("/")
    folder = folder or ("seed0" if env.startswith("smac:") else "")
    base = Path("demos_data") / "full" / env_name / folder if folder else Path("demos_data")
    return base / f"{env_name}_{level}.npz"


def quick(experiment: Experiment) -> Experiment:
    """A small version with fewer steps, two seeds, and only the curves whose demonstrations are in the repository.

    Environments of other packages are left out, because ``make install`` does not install them.
    """
    panels = []
    for panel in (each for each in experiment.panels if not each.env):
        curves = tuple(
            replace(curve, seeds=2)
            for curve in panel.curves
            if "/" not in (curve.demos or "") and not curve.options.get("recurrent")  # recurrent networks are slow
        )
        # A panel that compares demonstrations needs at least two of them.
        wanted, left = ({curve.demos for curve in each} - {None} for each in (panel.curves, curves))
        if curves and len(left) >= min(2, len(wanted)):
            panels.append(replace(panel, curves=curves, steps=min(panel.steps, QUICK_STEPS)))
    return replace(experiment, panels=tuple(panels))


def runs(experiment: Experiment, root: Path, *, backend: str = "smax", seeds: int | None = None) -> list[Run]:
    """All runs, each listed once.

    The first seed of every curve comes first, then the second, and so on: half a grid is half of each curve.

    Args:
        experiment: The experiment.
        root: The folder of all results.
        backend: "smax" or "smac".
        seeds: The number of seeds of each curve, instead of the curve's own.
    """
    found: dict[Path, Run] = {}
    most = max((seeds or curve.seeds for panel in experiment.panels for curve in panel.curves), default=0)
    for number in range(most):
        for panel in experiment.panels:
            for curve in panel.curves:
                if number < (seeds or curve.seeds):
                    run = Run(panel, curve, curve.first_seed + number, backend, root)
                    found.setdefault(run.folder, run)
    return list(found.values())
