"""The search for the strongest independent PPO: one setting at a time around the settings of examples/ippo_sb3.py."""

from __future__ import annotations

from typing import Any

from experiments.plan import Curve, Experiment
from experiments.scenarios import SCENARIOS, TUNED_ON
from experiments.settings import described, dm2, ippo, tuning

# The other values to try. The program's own are "earned", 1e-3, 0.01 and 4.
OTHERS: dict[str, tuple[Any, ...]] = {
    "after_death": ("mean", "critic"),
    "learning_rate": (5e-4, 2e-3),
    "ent_coef": (0.003, 0.03),
    "n_epochs": (10,),
}


def baseline_experiment() -> Experiment:
    """Nine settings on five scenarios, seeds 0 to 2."""
    panels = []
    for name in TUNED_ON:
        curves = _curves(name)
        panels.append(SCENARIOS[name].panel(name, curves, curves[0].slug))
    return Experiment("Tuning IPPO, one setting at a time (tuning seeds 0 to 2, not the reported seeds)", tuple(panels))


def _curves(name: str) -> tuple[Curve, ...]:
    changed = ({name: value} for name, values in OTHERS.items() for value in values)
    curves = (ippo("the settings of today"), *(ippo(described(each), **each) for each in changed))
    return tuple(tuning(each, seeds=3) for each in (*curves, _smaller_rewards(name)))


def _smaller_rewards(name: str) -> Curve:
    """Independent PPO whose rewards, and so the critics' targets, are ten times smaller, in place of value normalization.

    It has discriminators that pay nothing, because only with them the program has a factor on the environment's reward.
    """
    options: dict[str, Any] = {"coefficient": 0.0, "env_coefficient": 0.1, "pretrain": 0, "updates": 1}
    return dm2(name, SCENARIOS[name].experts, "rewards x 0.1", **options)
