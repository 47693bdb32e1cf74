"""The search for settings with which QMIX learns 5m_vs_6m on every seed."""

from __future__ import annotations

from typing import Any

from experiments.plan import Experiment, Panel
from experiments.settings import qmix, tuning

_SCENARIO = "5m_vs_6m"
# The teams that learn have stopped losing their battles within 20 steps long before.
_STEPS = 600_000
# The program's settings: epsilon falls over 50,000 steps, Adam's step size is 5e-4, target networks move by 0.005 at each
# gradient step, and there is one gradient step on 512 joint steps for 32 environment steps.
_TRIED: dict[str, dict[str, Any]] = {
    "the program's settings": {},
    "epsilon over 200,000 steps": {"epsilon_steps": 200_000},
    "step size 0.001": {"learning_rate": 1e-3},
    "target networks move by 0.02": {"tau": 0.02},
    "four times larger batches, four times less often": {"update_every": 128, "batch_size": 2048},
    "2-step returns": {"n_steps": 2},
    "3-step returns": {"n_steps": 3},
    "twice as many gradient steps": {"update_every": 16},
    "layers of 128": {"hidden": 128},
    "epsilon of 0.1 at the end": {"epsilon_end": 0.1},
    "discount 0.95": {"gamma": 0.95},
    "target networks move by 0.02, twice as many gradient steps": {"tau": 0.02, "update_every": 16},
    "target networks move by 0.05": {"tau": 0.05},
}


def qmix_search() -> Experiment:
    """One setting at a time, tuning seeds 0 to 2."""
    curves = tuple(
        tuning(qmix(_SCENARIO, label, base={"n-steps": 1}, **options), seeds=3) for label, options in _TRIED.items()
    )
    panel = Panel(_SCENARIO, curves, steps=_STEPS, baseline=curves[0].slug)
    return Experiment("QMIX, one setting at a time (tuning seeds 0 to 2, not the reported seeds)", (panel,))


def slower_targets() -> Experiment:
    """What the search changed, on report seeds: the program's slower target networks, with and without one more layer."""
    base = {"n-steps": 1}
    curves = (
        qmix(_SCENARIO),
        qmix(_SCENARIO, "QMIX, one additional layer", extra_layer=True),
        qmix(_SCENARIO, "QMIX, slower target networks", base=base, seeds=2),
        qmix(_SCENARIO, "QMIX, slower target networks, one additional layer", base=base, seeds=2, extra_layer=True),
    )
    panel = Panel(_SCENARIO, curves, baseline=curves[0].slug)
    return Experiment("QMIX on 5m_vs_6m: target networks that move by 0.02 and by 0.005", (panel,))
