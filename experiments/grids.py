"""Every experiment as data: the runs it needs and the figure it makes.

An experiment is a row of panels, a panel is one scenario, and a panel's curves are groups of runs that differ only in
their seed. Figures share runs: IPPO on 5m_vs_6m is run once and drawn in every figure that needs it.
"""

from __future__ import annotations

from dataclasses import replace

from experiments.baseline import baseline_experiment
from experiments.default_setting import default_experiment
from experiments.experts import STYLE_TEAMS, WEAKER_STRONGER
from experiments.other_algorithms import other_algorithms
from experiments.paper_figures import PAPER_FIGURES, figure2
from experiments.plan import Curve, Experiment, Panel
from experiments.qmix_search import qmix_search, slower_targets
from experiments.setting_search import both_experiment, candidates_experiment, clones_experiment, scale_experiment
from experiments.settings import (
    IPPO_ALONE,
    PAPER_GAIL,
    PAPER_PPO,
    PAPER_RECURRENT,
    dm2,
    dm2_of_paper,
    ippo,
    option_names,
)

_FOR_64_SUB_ENVIRONMENTS = "the length of its rollouts is chosen for SMAX's 64 sub-environments"


def _with_all_seeds(experiments: dict[str, Experiment]) -> dict[str, Experiment]:
    """Give equal curves the same number of seeds, the largest in any experiment, so all figures show the same runs."""

    def key(panel: Panel, curve: Curve) -> tuple[str, str]:
        return panel.scenario, curve.slug

    most: dict[tuple[str, str], int] = {}
    for experiment in experiments.values():
        for panel in experiment.panels:
            for curve in panel.curves:
                most[key(panel, curve)] = max(curve.seeds, most.get(key(panel, curve), 0))

    def widened(panel: Panel) -> Panel:
        return replace(panel, curves=tuple(replace(curve, seeds=most[key(panel, curve)]) for curve in panel.curves))

    return {name: replace(each, panels=tuple(map(widened, each.panels))) for name, each in experiments.items()}


_EXPERIMENTS: dict[str, Experiment] = {
    **PAPER_FIGURES,
    "gail": Experiment(
        "GAIL alone, without the environment's reward",
        (
            Panel(
                "3s_vs_4z",
                (
                    # The win rate varies much between evaluations. Smaller learning rates and longer rollouts reduce this.
                    *(
                        dm2("3s_vs_4z", demos, label, seeds=3, coefficient=1.0, env_coefficient=0.0, **options)
                        for demos, who in (("win30", "weaker experts"), ("win50", "stronger experts"))
                        for label, options in (
                            (f"{who}, rollouts of 64 steps", {"learning_rate": 5e-4}),
                            (f"{who}, of 128, gamma 0.97", {"learning_rate": 5e-4, "n_steps": 128, "gamma": 0.97}),
                        )
                    ),
                    replace(IPPO_ALONE, label="IPPO, environment's reward only", seeds=3),
                ),
            ),
        ),
        smax_only=_FOR_64_SUB_ENVIRONMENTS,
    ),
    "survival": Experiment(
        "The reward as a function of the discriminator, on a map with deadly walls",
        (
            Panel(
                "3s_vs_4z",
                (
                    *(
                        dm2("3s_vs_4z", "win50", label, seeds=3, **{"coefficient": 0.3, **options})
                        for label, options in (
                            ("logit, centered", {}),
                            ("logit, raw", {"center": False}),
                            ("logit, raw, absorbing ends (the paper's)", {"center": False, "ends": "absorbing"}),
                            ("-log(1-D), raw", {"center": False, "reward": "-log(1-D)"}),
                            ("log D, raw", {"center": False, "reward": "log D"}),
                            ("GAIL alone, centered", {"env_coefficient": 0.0}),
                            ("GAIL alone, raw", {"env_coefficient": 0.0, "center": False}),
                        )
                    ),
                    replace(IPPO_ALONE, seeds=3),
                ),
            ),
        ),
        plot_lengths=True,
        smax_only="only SMAX has deadly walls",
    ),
    "coefficient": Experiment(
        "The reward mixture coefficient c",
        tuple(
            Panel(
                scenario,
                (
                    *(
                        replace(dm2(scenario, WEAKER_STRONGER[scenario][0], f"c = {c}", coefficient=c, seeds=3), level=c)
                        for c in (0.01, 0.03, 0.05, 0.1, 0.3, 1.0, 3.0)
                    ),
                    replace(IPPO_ALONE, label="c = 0 (IPPO)", seeds=3),
                ),
            )
            for scenario in ("5m_vs_6m", "3s_vs_4z", "3s_vs_5z")
        ),
        level_label="c",
    ),
    "updates": Experiment(
        "Discriminator minibatches per rollout",
        (
            Panel(
                "5m_vs_6m",
                tuple(
                    replace(dm2("5m_vs_6m", "win30", f"{n} minibatches", updates=n, seeds=3), level=n)
                    for n in (1, 3, 10, 30, 120)
                ),
                baseline=dm2("5m_vs_6m", "win30", "").slug,
            ),
        ),
        level_label="minibatches per rollout",
    ),
    "agents": Experiment(
        "One agent without a discriminator",
        (
            Panel(
                "5m_vs_6m",
                (
                    dm2("5m_vs_6m", "win30", "all agents", seeds=3),
                    *(dm2("5m_vs_6m", "win30", f"all but ally_{k}", unmatched=f"ally_{k}", seeds=3) for k in range(5)),
                ),
                baseline=dm2("5m_vs_6m", "win30", "").slug,
            ),
        ),
        smax_only="its options name SMAX's agents",
    ),
    # The paper's rollouts have 256 episodes and its minibatches 64: about 8,192 and 1,600 transitions on 5m_vs_6m.
    "preset": Experiment(
        "The paper's own settings",
        (
            Panel(
                "5m_vs_6m",
                (
                    dm2("5m_vs_6m", "win30", "DM2", seeds=3),
                    dm2_of_paper("DM2, the paper's discriminators", "dm2-paper-gail", **PAPER_GAIL),
                    replace(IPPO_ALONE, seeds=3),
                ),
                title="5m_vs_6m, this library's PPO",
            ),
            Panel(
                "5m_vs_6m",
                (
                    dm2_of_paper("DM2, the paper's discriminators", "dm2-paper", **PAPER_GAIL, **PAPER_PPO),
                    Curve("IPPO", "ippo-paper", {"algorithm": "ippo", **option_names(PAPER_PPO)}, seeds=3),
                ),
                title="5m_vs_6m, the paper's PPO",
                baseline="ippo-paper",
            ),
            Panel(
                "5m_vs_6m",
                (
                    dm2_of_paper("DM2", "dm2-paper-recurrent", seeds=1, **PAPER_GAIL, **PAPER_RECURRENT),
                    Curve("IPPO", "ippo-paper-recurrent", {"algorithm": "ippo", **option_names(PAPER_RECURRENT)}, seeds=1),
                ),
                steps=200_000,
                title="5m_vs_6m, the paper's PPO and recurrent networks",
                baseline="ippo-paper-recurrent",
            ),
        ),
        smax_only=_FOR_64_SUB_ENVIRONMENTS,
    ),
    "teachers": Experiment(
        "Experts from different trainings",
        (
            # The five trainings of Figure 3, each with the team whose win rate is closest to that of the weaker experts.
            Panel(
                "5m_vs_6m",
                (
                    dm2("5m_vs_6m", "win30", "DM2, experts of training 1", seeds=3),
                    *(
                        dm2("5m_vs_6m", f"seed{seed}/{weaker}", f"DM2, experts of training {seed}", seeds=3)
                        for seed, (weaker, _) in list(STYLE_TEAMS["smax:5m_vs_6m"].items())[1:]
                    ),
                    replace(IPPO_ALONE, seeds=3),
                ),
                title="5m_vs_6m, experts of five IPPO trainings",
            ),
            Panel(
                "5m_vs_6m",
                (
                    dm2("5m_vs_6m", "win50", "DM2, experts trained by IPPO", seeds=3),
                    dm2("5m_vs_6m", "qmix0/win30", "DM2, experts trained by QMIX", seeds=3),
                    dm2("5m_vs_6m", "qmix0/win90", "DM2, experts trained by QMIX", seeds=3),
                    replace(IPPO_ALONE, seeds=3),
                ),
                title="5m_vs_6m, experts trained by QMIX",
            ),
            # The strongest experts of this scenario were trained by QMIX.
            Panel(
                "3s_vs_5z",
                (
                    dm2("3s_vs_5z", "seed0/win40", "DM2, experts trained by IPPO", seeds=3),
                    dm2("3s_vs_5z", "qmix0/win90", "DM2, experts trained by QMIX", seeds=3),
                    replace(IPPO_ALONE, seeds=3),
                ),
                title="3s_vs_5z, experts trained by QMIX",
            ),
        ),
        smax_only="its experts were trained on SMAX",
    ),
    "deaths": Experiment(
        "How rewards received after an agent's death are credited (after_death)",
        (
            Panel(
                "5m_vs_6m",
                (
                    dm2("5m_vs_6m", "win30", "DM2, earned", seeds=3),
                    dm2("5m_vs_6m", "win30", "DM2, mean", seeds=3, after_death="mean"),
                    ippo("IPPO, mean", after_death="mean"),
                    replace(IPPO_ALONE, label="IPPO, earned", seeds=3),
                ),
            ),
        ),
        plot_lengths=True,
    ),
    "scenarios": Experiment(
        "DM2 and independent PPO on five scenarios",
        (
            figure2("3m", 3, steps=300_000, with_qmix=False),
            *(figure2(scenario, 3, with_qmix=False) for scenario in ("2s3z", "5m_vs_6m", "3s_vs_4z", "3s_vs_5z")),
        ),
    ),
    "anneal": Experiment(
        "c constant, or decreasing to 0 over the run",
        tuple(
            Panel(
                scenario,
                (
                    dm2(scenario, WEAKER_STRONGER[scenario][0], "c constant", coefficient=0.3, seeds=3),
                    dm2(scenario, WEAKER_STRONGER[scenario][0], "c decreasing", coefficient=0.3, anneal=True, seeds=3),
                    replace(IPPO_ALONE, seeds=3),
                ),
            )
            for scenario in ("5m_vs_6m", "3s_vs_4z", "2s3z", "3s_vs_5z")
        ),
    ),
    "algorithms": other_algorithms(),
    "baseline": baseline_experiment(),
    "both": both_experiment(),
    "qmix": qmix_search(),
    "targets": slower_targets(),
    "candidates": candidates_experiment(),
    "clones": clones_experiment(),
    "scale": scale_experiment(),
    "default": default_experiment(),
}

EXPERIMENTS = _with_all_seeds(_EXPERIMENTS)
