"""Algorithm 2, behavior cloning, other discriminator inputs and self-imitation next to Algorithm 1 and IPPO."""

from __future__ import annotations

from dataclasses import replace

from experiments.plan import Curve, Experiment, Panel
from experiments.settings import IPPO_ALONE, dm2

CLONING = 20  # passes over the demonstrations
_STEPS = {"3m": 300_000, "5m_vs_6m": 1_000_000}
_DEMONSTRATIONS = {"3m": "win50", "5m_vs_6m": "win30"}


def other_algorithms() -> Experiment:
    """The experiment "algorithms". The clones' own win rate is that of the curves "from clones" at step 0."""
    return Experiment("Algorithm 1, Algorithm 2, cloning, state-action and self-imitation", tuple(map(_panel, _STEPS)))


def _panel(scenario: str) -> Panel:
    demos = _DEMONSTRATIONS[scenario]
    ippo_from_clones = {"algorithm": "ippo", "pretrain": CLONING}
    curves = (
        dm2(scenario, demos, "DM2, Algorithm 1", seeds=3),
        # As in the paper, a discriminator converges on the newest rollout alone.
        dm2(scenario, demos, "DM2, Algorithm 2 (turn by turn)", seeds=3, order="turn", keep_buffer=False),
        dm2(scenario, demos, "DM2 with state-action discriminators", seeds=3, inputs="state-action"),
        dm2(scenario, demos, "DM2 with the team's own best episodes added", seeds=3, experts="all+own"),
        dm2(scenario, demos, "Self-imitation alone", seeds=3, experts="own"),
        dm2(scenario, demos, "DM2 from clones", seeds=3, pretrain=CLONING),
        Curve("IPPO from clones", f"ippo-{demos}-pretrain={CLONING}", ippo_from_clones, demos, seeds=3),
        replace(IPPO_ALONE, seeds=3),
    )
    return Panel(scenario, curves, steps=_STEPS[scenario])
