"""The algorithms' settings, and curves with these settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dm2_wrappers.matching.paper import COEFFICIENTS as PAPER_COEFFICIENTS
from experiments.plan import QMIX, REPORT_SEED, TUNING_SEED, Curve

# c of each scenario: from the paper or its authors' repository, else the paper's larger value.
COEFFICIENTS = {**PAPER_COEFFICIENTS, "3m": 0.3, "2s3z": 0.3}

# The paper's training, as far as these learners can do the same: see the experiment "preset".
PAPER_PPO: dict[str, Any] = {"n_steps": 128, "n_epochs": 10, "minibatches": 1, "clip_range": 0.05, "learning_rate": 5e-4}
PAPER_RECURRENT = {**PAPER_PPO, "recurrent": True}
PAPER_GAIL: dict[str, Any] = {"updates": 120, "batch_size": 1600, "keep_buffer": False, "center": False}

# What QMIX is given on each scenario: n-step returns chosen from single runs, tau by `qmix_search` on tuning seeds.
QMIX_OPTIONS: dict[str, dict[str, Any]] = {
    "5m_vs_6m": {"n-steps": 1, "tau": 0.02},
    "3s_vs_4z": {"n-steps": 3},
    "3s_vs_5z": {"n-steps": 3},
}

IPPO_ALONE = Curve("IPPO", "ippo", {"algorithm": "ippo"})

# A c that falls to 0 over the run.
FALLING: dict[str, Any] = {"coefficient": 0.3, "anneal": True}

# Names of options in labels.
_IN_WORDS = {"learning_rate": "learning rate", "n_epochs": "epochs", "ent_coef": "entropy bonus"}
# Options with the program's default value are left out, so equal runs have equal names.
_DEFAULTS = {"updates": 30, "center": True, "reward": "logit", "env-coefficient": 1.0}


def option_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same options, named as on the command line: ``n_steps`` becomes ``n-steps``."""
    return {key.replace("_", "-"): value for key, value in options.items()}


def ippo(label: str, *, slug: str = "ippo", seeds: int = 3, first_seed: int = REPORT_SEED, **options: Any) -> Curve:
    """Independent PPO with options that differ from the program's defaults."""
    given = option_names(options)
    name = "-".join([slug, *(f"{key}={value}" for key, value in given.items())])
    return Curve(label, name, {"algorithm": "ippo", **given}, seeds=seeds, first_seed=first_seed)


def dm2(scenario: str, demos: str, label: str, *, seeds: int = 5, **options: Any) -> Curve:
    """DM2 with the scenario's c, unless ``coefficient`` is given."""
    coefficient = options.pop("coefficient") if "coefficient" in options else COEFFICIENTS[scenario]
    given = {key: value for key, value in option_names(options).items() if _DEFAULTS.get(key) != value}
    slug = "-".join(
        ["dm2", demos.replace("/", "-"), f"c{coefficient:g}", *(f"{k}={v}".replace(" ", "") for k, v in given.items())]
    )
    return Curve(label, slug, {"coefficient": coefficient, **given}, demos, seeds=seeds)


def dm2_of_paper(label: str, slug: str, *, seeds: int = 3, **options: Any) -> Curve:
    """DM2 on 5m_vs_6m with settings of the paper and a short name."""
    return replace(dm2("5m_vs_6m", "win30", label, seeds=seeds, **options), slug=slug)


def qmix(
    scenario: str, label: str = "QMIX", *, base: Mapping[str, Any] | None = None, seeds: int = 5, **options: Any
) -> Curve:
    """QMIX with the scenario's options, or with those of ``base`` instead, and others besides."""
    given = {**(QMIX_OPTIONS[scenario] if base is None else base), **option_names(options)}
    slug = "-".join(["qmix", *(f"{key}={value}" for key, value in given.items())])
    return Curve(label, slug, given, program=QMIX, seeds=seeds)


def described(options: Mapping[str, Any]) -> str:
    """For example "learning rate 0.002"."""
    return ", ".join(f"{_IN_WORDS.get(name, name)} {value}" for name, value in options.items())


def tuning(curve: Curve, seeds: int = 1) -> Curve:
    """The same curve on tuning seeds, in a folder of its own: the reported runs never include them."""
    return replace(curve, slug=f"tuning-{curve.slug}", first_seed=TUNING_SEED, seeds=seeds)
