"""A grid whose runs take seconds."""

from dataclasses import replace

from experiments.plan import Curve, Panel, Run

TINY = {"num-envs": 4, "n-steps": 16, "eval-every": 64, "eval-episodes": 4, "final-episodes": 4}
PANEL = Panel(
    "3m",
    (
        Curve("IPPO", "ippo", {"algorithm": "ippo", **TINY}),
        Curve("DM2", "dm2", {"coefficient": 0.3, "updates": 2, **TINY}, demos="win50"),
    ),
    steps=320,
)


def run_of(root, curve=0, seed=0, **changes):
    """IPPO (0) or DM2 (1) of the panel, with changes to it."""
    return Run(replace(PANEL, **changes), PANEL.curves[curve], seed, "smax:3m", root)
