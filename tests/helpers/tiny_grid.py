"""A grid whose runs take seconds, and run folders written by hand."""

import json
from dataclasses import replace

from experiments.plan import Curve, Panel, Run
from experiments.run_files import as_text

TINY = {"num-envs": 4, "n-steps": 16, "eval-every": 64, "eval-episodes": 4, "final-episodes": 4}
PANEL = Panel(
    "3m",
    (
        Curve("IPPO", "ippo", {"algorithm": "ippo", **TINY}, first_seed=0),
        Curve("DM2", "dm2", {"coefficient": 0.3, "updates": 2, **TINY}, demos="win50", first_seed=0),
    ),
    steps=320,
)


def run_of(root, curve=0, seed=0, **changes):
    """IPPO (0) or DM2 (1) of the panel, with changes to it."""
    return Run(replace(PANEL, **changes), PANEL.curves[curve], seed, "smax", root)


def tiny_run_of(root, curve=0, seed=0, demos=None, **changes):
    """The same on an environment that starts faster than SMAX; DM2 needs demonstrations of it."""
    run = run_of(root, curve, seed, **changes)
    options = dict(run.curve.options) if demos is None else {**run.curve.options, "demos": str(demos)}
    panel = replace(run.panel, env="tests.helpers.tiny_envs:HalfWonEnv")
    return replace(run, panel=panel, curve=replace(run.curve, options=options, demos=None))


def write_run_json(run, **changes):
    """A valid run.json of this run, with changes to it."""
    run.folder.mkdir(parents=True, exist_ok=True)
    content = {"options": as_text(run.options), "demonstrations": None, "seconds": 1.0, "attempts": 1, "commit": "abc"}
    (run.folder / "run.json").write_text(json.dumps(content | changes))


def write_evaluations(folder, win_rates):
    """An evaluations.csv with these win rates by step; lengths are 10 times as large."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["step,win_rate,win_rate_se,length", *(f"{step},{rate},0.1,{10 * rate}" for step, rate in win_rates.items())]
    (folder / "evaluations.csv").write_text("\r\n".join(lines) + "\r\n", newline="")


def write_finished_run(run, win_rates, **changes):
    """All files of a finished run with these win rates by step; the last one is that after training."""
    write_run_json(run, **changes)
    write_evaluations(run.folder, win_rates)
    (run.folder / "config.json").write_text(json.dumps({"env": run.env, "run": str(run.folder)}))
    last = max(win_rates)
    (run.folder / "final.json").write_text(json.dumps({"step": last, "win_rate": win_rates[last], "episodes": 512}))
