"""The algorithms' settings, and curves of runs with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dm2_wrappers.matching.paper import COEFFICIENTS as PAPER_COEFFICIENTS
from experiments.plan import QMIX, Curve

# The paper's c or its authors' repository's, and for scenarios that neither has the paper's larger one.
COEFFICIENTS = {**PAPER_COEFFICIENTS, "3m": 0.3, "2s3z": 0.3}

# How the paper trains, as far as these learners can: see the experiment "preset".
PAPER_PPO: dict[str, Any] = {"n_steps": 128, "n_epochs": 10, "minibatches": 1, "clip_range": 0.05, "learning_rate": 5e-4}
PAPER_RECURRENT = {**PAPER_PPO, "recurrent": True}
PAPER_GAIL: dict[str, Any] = {"updates": 120, "batch_size": 1600, "keep_buffer": False, "center": False}

# Rewards summed before the target network's value: chosen after single runs of QMIX, as c is chosen for DM2.
QMIX_STEPS = {"5m_vs_6m": 1, "3s_vs_4z": 3, "3s_vs_5z": 3}

IPPO_ALONE = Curve("IPPO", "ippo", {"algorithm": "ippo"})


# Left out of a command, since the program does the same without them: so equal runs have equal names.
_DEFAULTS = {"updates": 30, "center": True, "reward": "logit", "env-coefficient": 1.0}


def named(options: Mapping[str, Any]) -> dict[str, Any]:
    """As on a command line."""
    return {key.replace("_", "-"): value for key, value in options.items()}


def dm2(scenario: str, demos: str, label: str, *, seeds: int = 5, **options: Any) -> Curve:
    """DM2 with the scenario's c, unless another is given."""
    coefficient = options.pop("coefficient", COEFFICIENTS[scenario])
    given = {key: value for key, value in named(options).items() if _DEFAULTS.get(key) != value}
    slug = "-".join(
        ["dm2", demos.replace("/", "-"), f"c{coefficient:g}", *(f"{k}={v}".replace(" ", "") for k, v in given.items())]
    )
    return Curve(label, slug, {"coefficient": coefficient, **given}, demos, seeds=seeds)


def dm2_of_paper(label: str, slug: str, *, seeds: int = 3, **options: Any) -> Curve:
    """DM2 with settings of the paper's and a short name."""
    return replace(dm2("5m_vs_6m", "win30", label, seeds=seeds, **options), slug=slug)


def qmix(scenario: str, label: str = "QMIX", *, seeds: int = 5, **options: Any) -> Curve:
    """QMIX with the scenario's n-step returns."""
    given = {"n-steps": QMIX_STEPS[scenario], **named(options)}
    slug = "-".join(["qmix", *(f"{key}={value}" for key, value in given.items())])
    return Curve(label, slug, given, program=QMIX, seeds=seeds)
