"""The search for the strongest independent PPO: one setting at a time around the settings of examples/ippo_sb3.py."""

from __future__ import annotations

from typing import Any

from experiments.plan import Curve, Experiment
from experiments.scenarios import SCENARIOS, TUNED_ON
from experiments.settings import described, ippo, tuning

# The other values to try. The program's own are "earned", 1e-3, 0.01 and 4.
OTHERS: dict[str, tuple[Any, ...]] = {
    "after_death": ("mean", "critic"),
    "learning_rate": (5e-4, 2e-3),
    "ent_coef": (0.003, 0.03),
    "n_epochs": (10,),
}


def baseline_experiment() -> Experiment:
    """Eight settings on five scenarios, seeds 0 to 2."""
    curves = _curves()
    panels = tuple(SCENARIOS[name].panel(name, curves, curves[0].slug) for name in TUNED_ON)
    return Experiment("Tuning IPPO, one setting at a time (tuning seeds 0 to 2, not the reported seeds)", panels)


def _curves() -> tuple[Curve, ...]:
    changed = ({name: value} for name, values in OTHERS.items() for value in values)
    curves = (ippo("the settings of today"), *(ippo(described(each), **each) for each in changed))
    return tuple(tuning(each, seeds=3) for each in curves)
