"""The setting of examples/ippo_sb3.py next to the strongest independent PPO, and the search for a better one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dm2_wrappers.matching.paper import COEFFICIENTS as PAPER_COEFFICIENTS
from experiments.experts import WEAKER_STRONGER
from experiments.other_algorithms import CLONING
from experiments.plan import TUNING_SEED, Curve, Experiment, Panel
from experiments.settings import IPPO_ALONE, dm2, ippo

# The experts: they win about 30 %. A file "win30_won" holds only the episodes that they won, which are those that are shown.
EXPERTS = {scenario: weaker for scenario, (weaker, _) in WEAKER_STRONGER.items()} | dict.fromkeys(
    ("2s3z", "3s5z"), "win30_won"
)
STEPS = {"3m": 300_000, "2s3z": 1_000_000, "5m_vs_6m": 1_000_000, "3s_vs_4z": 1_000_000, "3s_vs_5z": 1_000_000}
# A scenario that settings are not tuned on.
_UNTUNED = {"3s5z": 1_000_000}
# Environments of other packages: their --env, the steps of a run, and c at the start. They do not report wins, so "weak"
# experts are those whose return is about 30 % of the way from a random team's to a good one's. examples/record_demos.py
# recorded them.
_OTHERS = {
    "spread": ("_environments:simple_spread", 200_000, 0.046),
    "large_foraging": ("_environments:large_foraging", 300_000, 0.00053),
}
# The default on SMAX: it was chosen among the candidates below. c falls to 0 over the run. The program starts with 1/400 of
# the mean return of the episodes that are shown, which is 0.05 on SMAX.
DEFAULT: dict[str, Any] = {
    "coefficient": 0.05,
    "anneal": True,
    "experts": "best",
    "standardize": True,
    "pretrain": CLONING,
}
_FALLING: dict[str, Any] = {"coefficient": 0.3, "anneal": True}
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
}


def default_experiment() -> Experiment:
    """The experiment "default": five seeds of each scenario, with one setting for all."""
    panels = (*map(_default_panel, STEPS | _UNTUNED), *map(_other_panel, _OTHERS))
    return Experiment("The default setting and the strongest independent PPO", panels, against_strongest=True)


def _default_panel(scenario: str) -> Panel:
    ours = dm2(scenario, EXPERTS[scenario], "DM2, the default", **DEFAULT)
    curves = [ours, _from_clones(EXPERTS[scenario]), replace(IPPO_ALONE, seeds=5)]
    if scenario == "5m_vs_6m":  # the only scenario on which another after_death was tried
        curves.append(ippo("IPPO, after_death mean", seeds=5, after_death="mean"))
    if scenario in WEAKER_STRONGER:
        curves.append(dm2(scenario, WEAKER_STRONGER[scenario][0], "DM2, the default before", **_before(scenario)))
    return Panel(scenario, tuple(curves), steps=(STEPS | _UNTUNED)[scenario])


def _before(scenario: str) -> dict[str, Any]:
    """What examples/ippo_sb3.py did until it began with clones: the paper's c, or 0.3 falling, and all episodes."""
    c = PAPER_COEFFICIENTS.get(scenario)
    return _FALLING if c is None else {"coefficient": c}


def _other_panel(scenario: str) -> Panel:
    env, steps, coefficient = _OTHERS[scenario]
    ours = dm2(scenario, "weak", "DM2, the default", **{**DEFAULT, "coefficient": coefficient})
    curves = (ours, _from_clones("weak"), replace(IPPO_ALONE, seeds=5))
    return Panel(scenario, curves, steps=steps, env=env, measure="return")


def _from_clones(demos: str) -> Curve:
    """Independent PPO that begins as the default's teams do: what the discriminators add to cloning."""
    options = {"algorithm": "ippo", "experts": DEFAULT["experts"], "pretrain": DEFAULT["pretrain"]}
    return Curve("IPPO from the same clones", f"ippo-{demos}-best-pretrain={CLONING}", options, demos)


def scale_experiment() -> Experiment:
    """The experiment "scale": c as on SMAX, or in proportion to the return, where returns are small (tuning seed 0)."""
    env, steps, in_proportion = _OTHERS["large_foraging"]
    tried = {"c from 0.05, as on SMAX": DEFAULT["coefficient"], "c from 1/400 of the experts' return": in_proportion}
    curves = (dm2("large_foraging", "weak", label, **{**DEFAULT, "coefficient": c}) for label, c in tried.items())
    own = tuple(replace(each, slug=f"tuning-{each.slug}", first_seed=TUNING_SEED, seeds=1) for each in curves)
    panel = Panel("large_foraging", own, steps=steps, baseline=own[0].slug, env=env, measure="return")
    return Experiment("Where c starts if returns are small (tuning seed 0, not a reported seed)", (panel,))


def candidates_experiment() -> Experiment:
    """The experiment "candidates": tuning seeds 0 to 2."""
    panels = tuple(Panel(each, _candidates(each), steps, baseline="tuning-ippo") for each, steps in STEPS.items())
    return Experiment("Settings that may become the default (tuning seeds 0 to 2, not the reported seeds)", panels)


def _candidates(scenario: str) -> tuple[Curve, ...]:
    demos = EXPERTS[scenario]
    tried = (dm2(scenario, demos, label, **{**_FALLING, **options}) for label, options in _CANDIDATES.items())
    clones = {"algorithm": "ippo", "experts": "won", "pretrain": CLONING}
    from_clones = Curve("IPPO from clones of won episodes", f"ippo-{demos}-won-pretrain={CLONING}", clones, demos)
    own = (replace(curve, slug=f"tuning-{curve.slug}", first_seed=TUNING_SEED, seeds=3) for curve in (*tried, from_clones))
    return (*own, ippo("IPPO", slug="tuning-ippo", first_seed=TUNING_SEED))
