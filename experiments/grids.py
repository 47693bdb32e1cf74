"""Every experiment as data: which runs it needs and how its figure shows them.

An experiment is a row of panels, a panel is one scenario, and a panel's curves are groups of runs that differ in their
seed only. A run belongs to its settings, not to a figure: IPPO on 5m_vs_6m is run once and drawn wherever it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FIRST_SEED = 100  # of the runs: those of the demonstrators' trainings are below, so no run begins as its demonstrators did
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
    """

    label: str
    slug: str
    options: Mapping[str, Any] = field(default_factory=dict)
    demos: str | None = None
    program: str = IPPO
    seeds: int = 5


@dataclass(frozen=True)
class Panel:
    """One scenario: its curves, and the environment steps of every run."""

    scenario: str
    curves: tuple[Curve, ...]
    steps: int = 1_000_000
    title: str = ""


@dataclass(frozen=True)
class Experiment:
    """One figure."""

    title: str
    panels: tuple[Panel, ...]


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

    A name without a folder is a file that the repository holds.
    """
    env_name = env.replace(":", "_")
    folder, _, level = name.rpartition("/")
    base = Path("demos_data") / "full" / env_name / folder if folder else Path("demos_data")
    return base / f"{env_name}_{level}.npz"


# The paper's c, and where the paper has none a value between its others.
COEFFICIENTS = {"5m_vs_6m": 0.3, "3s_vs_4z": 0.05, "3s_vs_5z": 0.1}

# Demonstrators of about 30 % and about 50 %; those without a folder are in the repository.
LOW_HIGH = {"5m_vs_6m": ("win30", "win50"), "3s_vs_4z": ("win30", "win50"), "3s_vs_5z": ("seed0/win30", "seed0/win40")}

# Rewards summed before the target network's value: chosen after single runs of QMIX, as c is chosen for DM2.
QMIX_STEPS = {"5m_vs_6m": 1, "3s_vs_4z": 3, "3s_vs_5z": 3}

IPPO_ALONE = Curve("IPPO", "ippo", {"algorithm": "ippo"})


# Left out of a command, since the program does the same without them: so equal runs have equal names.
_DEFAULTS = {"updates": 30, "center": True, "reward": "logit", "env-coefficient": 1.0}


def dm2(scenario: str, demos: str, label: str, *, seeds: int = 5, **options: Any) -> Curve:
    """DM2 with the scenario's c, unless another is given."""
    coefficient = options.pop("coefficient", COEFFICIENTS[scenario])
    named = {key.replace("_", "-"): value for key, value in options.items()}
    named = {key: value for key, value in named.items() if _DEFAULTS.get(key) != value}
    slug = "-".join(
        ["dm2", demos.replace("/", "-"), f"c{coefficient:g}", *(f"{k}={v}".replace(" ", "") for k, v in named.items())]
    )
    return Curve(label, slug, {"coefficient": coefficient, **named}, demos, seeds=seeds)


def qmix(scenario: str, label: str = "QMIX", *, seeds: int = 5, **options: Any) -> Curve:
    """QMIX with the scenario's n-step returns."""
    named = {"n-steps": QMIX_STEPS[scenario], **{key.replace("_", "-"): value for key, value in options.items()}}
    slug = "-".join(["qmix", *(f"{key}={value}" for key, value in named.items())])
    return Curve(label, slug, named, program=QMIX, seeds=seeds)


def _figure2(scenario: str, seeds: int) -> Panel:
    low, high = LOW_HIGH[scenario]
    return Panel(
        scenario,
        (
            replace(IPPO_ALONE, seeds=seeds),
            dm2(scenario, low, "DM2, weaker demonstrators", seeds=seeds),
            dm2(scenario, high, "DM2, stronger demonstrators", seeds=seeds),
            qmix(scenario),
        ),
    )


def _figure3(quality: str) -> Panel:
    main = LOW_HIGH["5m_vs_6m"][quality == "stronger"]
    styles = {
        main: "co-trained, concurrent (DM2)",
        f"styles/shuffled_{quality}": "co-trained, not concurrent",
        f"styles/together_{quality}": "not co-trained, concurrent",
        f"styles/mixed_{quality}": "not co-trained, not concurrent",
    }
    curves = (*(dm2("5m_vs_6m", name, label) for name, label in styles.items()), IPPO_ALONE)
    return Panel("5m_vs_6m", curves, title=f"5m_vs_6m, {quality} demonstrators")


def _figure4(scenario: str, training: str, levels: tuple[int, ...]) -> Panel:
    curves = (dm2(scenario, f"{training}/win{level:02d}", "DM2", seeds=3) for level in levels)
    return Panel(scenario, (*curves, replace(IPPO_ALONE, seeds=3), qmix(scenario, seeds=3)))


_FIG5 = (qmix("5m_vs_6m"), qmix("5m_vs_6m", "QMIX, one layer more", extra_layer=True))

EXPERIMENTS: dict[str, Experiment] = {
    "effect": Experiment(
        "DM2 and independent PPO",
        (
            Panel(
                "5m_vs_6m",
                tuple(replace(curve, seeds=3) for curve in _figure2("5m_vs_6m", 3).curves if curve.program == IPPO),
            ),
        ),
    ),
    "fig2": Experiment(
        "DM2, IPPO and QMIX",
        (_figure2("5m_vs_6m", 10), _figure2("3s_vs_4z", 5), _figure2("3s_vs_5z", 5)),
    ),
    "fig3": Experiment("Styles of demonstrations", (_figure3("weaker"), _figure3("stronger"))),
    "fig4": Experiment(
        "Ten qualities of demonstrators",
        (
            _figure4("5m_vs_6m", "seed1", (5, 10, 15, 20, 25, 30, 35, 45, 55, 60)),
            _figure4("3s_vs_4z", "seed0", (5, 10, 20, 30, 40, 50, 60, 70, 80, 90)),
        ),
    ),
    "fig5": Experiment("QMIX with and without a further layer", (Panel("5m_vs_6m", _FIG5),)),
    "gail": Experiment(
        "GAIL alone: the environment's reward switched off",
        (
            Panel(
                "3s_vs_4z",
                (
                    # The win rate swings from one evaluation to the next; smaller steps and longer rollouts steady it.
                    *(
                        dm2("3s_vs_4z", demos, label, seeds=3, coefficient=1.0, env_coefficient=0.0, **options)
                        for demos, who in (("win30", "weaker demonstrators"), ("win50", "stronger demonstrators"))
                        for label, options in (
                            (f"{who}, rollouts of 64 steps", {"learning_rate": 5e-4}),
                            (f"{who}, of 128, gamma 0.97", {"learning_rate": 5e-4, "n_steps": 128, "gamma": 0.97}),
                        )
                    ),
                    replace(IPPO_ALONE, label="IPPO, environment's reward alone", seeds=3),
                ),
            ),
        ),
    ),
    "survival": Experiment(
        "What is paid, as a function of the discriminator, where walls kill",
        (
            Panel(
                "3s_vs_4z",
                tuple(
                    dm2("3s_vs_4z", "win50", label, seeds=3, **{"coefficient": 0.3, **options})
                    for label, options in (
                        ("logit, centred", {}),
                        ("logit, raw", {"center": False}),
                        ("-log(1-D), raw", {"center": False, "reward": "-log(1-D)"}),
                        ("log D, raw", {"center": False, "reward": "log D"}),
                        ("GAIL alone, centred", {"env_coefficient": 0.0}),
                        ("GAIL alone, raw", {"env_coefficient": 0.0, "center": False}),
                    )
                ),
            ),
        ),
    ),
    "coefficient": Experiment(
        "The reward mixture coefficient c",
        tuple(
            Panel(
                scenario,
                (
                    *(
                        dm2(scenario, LOW_HIGH[scenario][0], f"c = {c}", coefficient=c, seeds=3)
                        for c in (0.01, 0.03, 0.05, 0.1, 0.3, 1.0, 3.0)
                    ),
                    replace(IPPO_ALONE, label="c = 0 (IPPO)", seeds=3),
                ),
            )
            for scenario in ("5m_vs_6m", "3s_vs_4z")
        ),
    ),
    "updates": Experiment(
        "Discriminator minibatches per rollout",
        (
            Panel(
                "5m_vs_6m",
                tuple(dm2("5m_vs_6m", "win30", f"{n} minibatches", updates=n, seeds=3) for n in (1, 3, 10, 30, 120)),
            ),
        ),
    ),
    "agents": Experiment(
        "One agent without discriminator",
        (
            Panel(
                "5m_vs_6m",
                (
                    dm2("5m_vs_6m", "win30", "all agents", seeds=3),
                    *(dm2("5m_vs_6m", "win30", f"all but ally_{k}", unmatched=f"ally_{k}", seeds=3) for k in range(5)),
                ),
            ),
        ),
    ),
    "anneal": Experiment(
        "c fixed, or falling to 0 over the run",
        tuple(
            Panel(
                scenario,
                (
                    dm2(scenario, LOW_HIGH[scenario][0], "c fixed", coefficient=0.3, seeds=3),
                    dm2(scenario, LOW_HIGH[scenario][0], "c falling", coefficient=0.3, anneal=True, seeds=3),
                    replace(IPPO_ALONE, seeds=3),
                ),
            )
            for scenario in ("5m_vs_6m", "3s_vs_4z")
        ),
    ),
}


def quick(experiment: Experiment) -> Experiment:
    """A small honest version: fewer steps, two seeds, no QMIX, demonstrations that the repository holds."""
    panels = []
    for panel in experiment.panels:
        curves = tuple(
            replace(curve, seeds=2) for curve in panel.curves if curve.program != QMIX and "/" not in (curve.demos or "")
        )
        if curves and panel.scenario in ("5m_vs_6m", "3s_vs_4z"):
            panels.append(replace(panel, curves=curves, steps=400_000))
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
