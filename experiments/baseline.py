"""The search for the strongest independent PPO, around the settings of examples/ippo_sb3.py, and DM2 with what it finds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.default_setting import DEFAULT, EXPERTS, STEPS
from experiments.plan import TUNING_SEED, Curve, Experiment, Panel
from experiments.settings import dm2, ippo

# What examples/ippo_sb3.py uses, and the other values to try.
TODAY: dict[str, Any] = {"after_death": "earned", "learning_rate": 1e-3, "ent_coef": 0.01, "n_epochs": 4}
OTHERS: dict[str, tuple[Any, ...]] = {
    "after_death": ("mean", "critic"),
    "learning_rate": (5e-4, 2e-3),
    "ent_coef": (0.003, 0.03),
    "n_epochs": (10,),
}
NAMES = {"after_death": "after death", "learning_rate": "learning rate", "ent_coef": "entropy bonus", "n_epochs": "epochs"}
# What is tried for both DM2 and independent PPO.
BOTH: tuple[dict[str, Any], ...] = ({}, {"learning_rate": 2e-3}, {"n_epochs": 10}, {"learning_rate": 2e-3, "n_epochs": 10})
# The scenarios on which another after_death is better for independent PPO.
AFTER_DEATH = {"5m_vs_6m": "mean"}

# Runs of a folder of their own: the reported results of IPPO never include the seeds that settings were chosen on.
_SLUG = "tuning-ippo"


def baseline_experiment() -> Experiment:
    """Eight settings per scenario, seeds 0 to 2."""
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


def both_experiment() -> Experiment:
    """DM2's default and independent PPO with the same learning rates and epochs."""
    curves = {scenario: _both(scenario) for scenario in STEPS}
    panels = tuple(Panel(each, curves[each], steps, baseline=curves[each][1].slug) for each, steps in STEPS.items())
    return Experiment(
        "DM2 and independent PPO, other learning rates and epochs (tuning seed 0, not a reported seed)", panels
    )


def _both(scenario: str) -> tuple[Curve, ...]:
    alone = {"after_death": AFTER_DEATH[scenario]} if scenario in AFTER_DEATH else {}
    curves = []
    for changed in BOTH:
        what = ", ".join(f"{NAMES[name]} {value}" for name, value in changed.items()) or "the settings of today"
        ours = dm2(scenario, EXPERTS[scenario], f"DM2, {what}", **DEFAULT, **changed)
        curves.append(replace(ours, slug=f"tuning-{ours.slug}", first_seed=TUNING_SEED, seeds=1))
        curves.append(ippo(f"IPPO, {what}", slug=_SLUG, first_seed=TUNING_SEED, seeds=1, **alone, **changed))
    return tuple(curves)
