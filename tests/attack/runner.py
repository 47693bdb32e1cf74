"""Kill a grid's runner at random moments and see that nothing of it shows in the results.

    python -m tests.attack.runner 10

A small grid (IPPO, DM2 and QMIX on 3m, two at a time) is run twice: once undisturbed, once killed (SIGKILL) as often as
said, at moments drawn anew at each start, and started again each time. Every third kill spares the runs themselves:
they go on without their runner, and the next one has to wait for them. In the end the CSVs and final evaluations must
be equal, byte for byte.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.plan import QMIX, Curve, Panel, Run
from experiments.run import ROOT, facts_of, is_done, steps_done
from experiments.scheduler import run_all

OFTEN = {"eval-every": 4096, "eval-episodes": 16, "final-episodes": 64}
PANEL = Panel(
    "3m",
    (
        Curve("IPPO", "ippo", {"algorithm": "ippo", **OFTEN}),
        Curve("DM2", "dm2", {"coefficient": 0.3, **OFTEN}, demos="win50"),
        Curve("QMIX", "qmix", {"learning-starts": 2000, **OFTEN}, program=QMIX),
    ),
    steps=400_000,
)
SECONDS = (8.0, 30.0)  # between start and kill; a run needs several of them until its first checkpoint
FILES = ("evaluations.csv", "final.json")


def grid(root: Path) -> list[Run]:
    """The three runs, in this folder."""
    return [Run(PANEL, curve, 0, "smax:3m", root) for curve in PANEL.curves]


def main(kills: int, seed: int) -> None:
    """Print each kill, and whether the results are equal; if not, everything stays for a look."""
    moments = random.Random(seed)
    folder = Path(tempfile.mkdtemp())
    print(f"in {folder}", flush=True)
    undisturbed, killed = grid(folder / "undisturbed"), grid(folder / "killed")
    for number in range(kills):
        _start_and_kill(killed, moments.uniform(*SECONDS), spare_runs=number % 3 == 2)
    print(f"{sum(map(is_done, killed))} of {len(killed)} runs were done before the last start")
    outcomes = run_all(killed) + run_all(undisturbed)
    if failed := [outcome for outcome in outcomes if outcome.state != "done"]:
        sys.exit("\n".join(f"{outcome.run.folder} failed: {outcome.message}" for outcome in failed))
    unlike = [
        f"{a.curve.slug}/{name}"
        for a, b in zip(undisturbed, killed, strict=True)
        for name in FILES
        if (a.folder / name).read_bytes() != (b.folder / name).read_bytes()
    ]
    attempts = ", ".join(f"{run.curve.slug} {facts_of(run)['attempts']}" for run in killed)
    print(f"attempts: {attempts}; " + (f"UNLIKE: {unlike}" if unlike else f"all {2 * len(killed)} files are equal"))
    if unlike:
        sys.exit(1)
    shutil.rmtree(folder)


def _start_and_kill(runs: list[Run], seconds: float, *, spare_runs: bool) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.attack.runner import grid\n"
        "from experiments.scheduler import run_all; run_all(grid(Path(sys.argv[1])))"
    )
    root = runs[0].root
    runner = subprocess.Popen([sys.executable, "-c", program, str(root)], cwd=ROOT)
    time.sleep(seconds)
    runner.kill()
    runner.wait()
    if not spare_runs:  # those too that an earlier runner began: all have the folder in their command
        subprocess.run(["pkill", "-KILL", "-f", str(root)], check=False)
    done = ", ".join(f"{run.curve.slug} {steps_done(run):,}" for run in runs)
    print(f"killed the runner{'' if spare_runs else ' and its runs'} after {seconds:.1f} s: {done}", flush=True)


if __name__ == "__main__":
    main(kills=int(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0)
