"""The search for the default setting, on tuning seeds."""

from __future__ import annotations

from typing import Any

from experiments.default_setting import DEFAULT, STRONGER_IPPO, default_dm2, from_clones
from experiments.other_algorithms import CLONING
from experiments.plan import Curve, Experiment
from experiments.scenarios import SCENARIOS, TUNED_ON
from experiments.settings import FALLING, described, dm2, ippo, tuning

# What is tried for both DM2 and independent PPO.
_CHANGED: tuple[dict[str, Any], ...] = ({}, {"learning_rate": 2e-3}, {"n_epochs": 10})
# Settings that may become the default, tried on seeds that no report uses.
_CANDIDATES: dict[str, dict[str, Any]] = {
    "all episodes, c falling": {},
    "won episodes, c falling": {"experts": "won"},
    "won episodes, standardized, c falling": {"experts": "won", "standardize": True},
    "won episodes, absorbing ends, c falling": {"experts": "won", "ends": "absorbing"},
    "won episodes, from their clones, c falling": {"experts": "won", "pretrain": CLONING},
    "won episodes, standardized, from their clones, c falling": {
        "experts": "won",
        "standardize": True,
        "pretrain": CLONING,
    },
    "won episodes, standardized, from their clones, c falling from 0.05": {
        "experts": "won",
        "standardize": True,
        "pretrain": CLONING,
        "coefficient": 0.05,
    },
    "the same with absorbing ends": {
        "experts": "won",
        "standardize": True,
        "pretrain": CLONING,
        "coefficient": 0.05,
        "ends": "absorbing",
    },
}

# What c does for teams that begin as clones of the won episodes.
_AFTER_CLONING: dict[str, dict[str, Any]] = {
    "c from 0.015": {"coefficient": 0.015, "anneal": True},
    "c from 0.05": {"coefficient": 0.05, "anneal": True},
    "c from 0.15": {"coefficient": 0.15, "anneal": True},
    "c from 0.3": {"coefficient": 0.3, "anneal": True},
    "c from 0.05, discriminators see actions": {"coefficient": 0.05, "anneal": True, "inputs": "state-action"},
    "c from 0.05, own best episodes added": {"coefficient": 0.05, "anneal": True, "experts": "best+own"},
    "c = 0.05": {"coefficient": 0.05},
    "c from 0.02, falling with the return": {"coefficient": 0.02, "return_gap": True},
    "c from 0.03, falling with the return": {"coefficient": 0.03, "return_gap": True},
    "c from 0.05, falling with the return": {"coefficient": 0.05, "return_gap": True},
    # 11.6 is about the mean return of all episodes that the experts played, won and lost.
    "c from 0.05, falling with the return to 11.6": {"coefficient": 0.05, "return_gap": True, "gap_target": 11.6},
}


def clones_experiment() -> Experiment:
    """The experiment "clones": what the discriminators add to cloning, by c (tuning seeds 0 to 2)."""
    names = ("3m", "2s3z", "5m_vs_6m", "3s_vs_4z", "3s_vs_5z", "3s5z")
    panels = tuple(SCENARIOS[name].panel(name, _after_cloning(name), _from_clones(name).slug) for name in names)
    return Experiment("c for teams that begin as clones (tuning seeds 0 to 2, not the reported seeds)", panels)


def _after_cloning(name: str) -> tuple[Curve, ...]:
    how = {"standardize": True, "pretrain": CLONING}
    demos = SCENARIOS[name].experts
    curves = (
        dm2(name, demos, label, **{**options, "experts": options.get("experts", "won"), **how})
        for label, options in _AFTER_CLONING.items()
    )
    return (_from_clones(name), *(tuning(curve, seeds=3) for curve in curves))


def scale_experiment() -> Experiment:
    """The experiment "scale": c as on SMAX, or in proportion to the return, where returns are small (tuning seed 0)."""
    name = "large_foraging"
    as_on_smax = default_dm2(name, "c from 0.05, as on SMAX", coefficient=DEFAULT["coefficient"])
    in_proportion = default_dm2(name, "c from 1/400 of the experts' return")
    curves = tuple(tuning(each) for each in (as_on_smax, in_proportion))
    panel = SCENARIOS[name].panel(name, curves, curves[0].slug)
    return Experiment("Where c starts if returns are small (tuning seed 0, not a reported seed)", (panel,))


def both_experiment() -> Experiment:
    """The experiment "both": the default and independent PPO with the same learning rates and epochs.

    Independent PPO also has the other treatment of deaths, with which its teams of 5m_vs_6m are stronger.
    """
    panels = []
    for name, scenario in SCENARIOS.items():
        curves = _both(name)
        panels.append(scenario.panel(name, curves, curves[1].slug))
    title = "DM2 and independent PPO, other learning rates and epochs (tuning seed 0, not a reported seed)"
    return Experiment(title, tuple(panels))


def _both(name: str) -> tuple[Curve, ...]:
    # The treatment of deaths is the better one for independent PPO throughout; its learning rate is what is tried here.
    alone = {key: value for key, value in STRONGER_IPPO.get(name, {}).items() if key == "after_death"}
    curves = []
    for changed in _CHANGED:
        what = described(changed) or "the settings of today"
        curves.append(tuning(default_dm2(name, f"DM2, {what}", **changed)))
        curves.append(tuning(ippo(f"IPPO, {what}", **alone, **changed)))
    if not alone and not SCENARIOS[name].env:  # nobody dies on the other tasks
        other: dict[str, Any] = {"after_death": "mean"}
        curves.append(tuning(ippo(f"IPPO, {described(other)}", **other)))
    return tuple(curves)


def candidates_experiment() -> Experiment:
    """The experiment "candidates": tuning seeds 0 to 2."""
    panels = tuple(SCENARIOS[name].panel(name, _candidates(name), "tuning-ippo") for name in TUNED_ON)
    return Experiment("Settings that may become the default (tuning seeds 0 to 2, not the reported seeds)", panels)


def _candidates(name: str) -> tuple[Curve, ...]:
    demos = SCENARIOS[name].experts
    tried = (dm2(name, demos, label, **{**FALLING, **options}) for label, options in _CANDIDATES.items())
    return (*(tuning(curve, seeds=3) for curve in tried), _from_clones(name), tuning(ippo("IPPO"), seeds=3))


def _from_clones(name: str) -> Curve:
    return tuning(from_clones(name, "IPPO from clones of won episodes", experts="won"), seeds=3)
