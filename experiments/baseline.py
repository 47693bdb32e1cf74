"""The search for the strongest independent PPO: one setting at a time around the settings of examples/ippo_sb3.py."""

from __future__ import annotations

from typing import Any

from experiments.plan import TUNING_SEED, Curve, Experiment, Panel
from experiments.settings import ippo

# What examples/ippo_sb3.py uses, and the other values to try.
TODAY: dict[str, Any] = {"after_death": "earned", "learning_rate": 1e-3, "ent_coef": 0.01, "n_epochs": 4}
OTHERS: dict[str, tuple[Any, ...]] = {
    "after_death": ("mean", "critic"),
    "learning_rate": (5e-4, 2e-3),
    "ent_coef": (0.003, 0.03),
    "n_epochs": (10,),
}
NAMES = {"after_death": "after death", "learning_rate": "learning rate", "ent_coef": "entropy bonus", "n_epochs": "epochs"}
STEPS = {"3m": 300_000, "2s3z": 1_000_000, "5m_vs_6m": 1_000_000, "3s_vs_4z": 1_000_000, "3s_vs_5z": 1_000_000}

# Runs of a folder of their own: the reported results of IPPO never include the seeds that settings were chosen on.
_SLUG = "tuning-ippo"


def baseline_experiment() -> Experiment:
    """Eight settings on five scenarios, seeds 0 to 2."""
    panels = tuple(Panel(scenario, _curves(), steps, baseline=_SLUG) for scenario, steps in STEPS.items())
    return Experiment("Tuning IPPO, one setting at a time (tuning seeds 0 to 2, not the reported seeds)", panels)


def _curves() -> tuple[Curve, ...]:
    today = ippo("the settings of today", slug=_SLUG, first_seed=TUNING_SEED)
    changed = (
        ippo(f"{NAMES[name]} {value}", slug=_SLUG, first_seed=TUNING_SEED, **{name: value})
        for name, values in OTHERS.items()
        for value in values
    )
    return (today, *changed)
