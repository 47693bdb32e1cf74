"""Kill the runner of a grid at random moments, and check that the results do not change.

    python -m tests.attack.runner 10

A small grid (IPPO, DM2 and QMIX on 3m, two at a time) is run twice: once undisturbed, and once killed (SIGKILL) at random
moments and started again each time. Every third kill spares the runs: they continue without their runner, and the next
runner must wait for them. In the end the CSV files and final evaluations must be equal, byte for byte.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.plan import QMIX, ROOT, Curve, Panel, Run
from experiments.run_files import is_done, read_run_json, steps_done
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
SECONDS = (8.0, 30.0)  # from start to kill; a run needs several seconds until its first checkpoint
FILES = ("evaluations.csv", "final.json")


def grid(root: Path) -> list[Run]:
    """The three runs in this folder."""
    return [Run(PANEL, curve, 0, "smax:3m", root) for curve in PANEL.curves]


def main(kills: int, seed: int) -> None:
    """Print each kill, and whether the results are equal. If they are not, the files are kept."""
    moments = random.Random(seed)
    folder = Path(tempfile.mkdtemp())
    print(f"in {folder}", flush=True)
    undisturbed, killed = grid(folder / "undisturbed"), grid(folder / "killed")
    runners: list[subprocess.Popen] = []
    for number in range(kills):
        _start_and_kill(killed, moments.uniform(*SECONDS), runners, spare_runs=number % 3 == 2)
    print(f"{sum(map(is_done, killed))} of {len(killed)} runs were done before the last start")
    outcomes = run_all(killed) + run_all(undisturbed)
    if failed := [outcome for outcome in outcomes if outcome.state != "done"]:
        sys.exit("\n".join(f"{outcome.run.folder} failed: {outcome.message}" for outcome in failed))
    different = [
        f"{a.curve.slug}/{name}"
        for a, b in zip(undisturbed, killed, strict=True)
        for name in FILES
        if (a.folder / name).read_bytes() != (b.folder / name).read_bytes()
    ]
    attempts = ", ".join(f"{run.curve.slug} {read_run_json(run.folder)['attempts']}" for run in killed)
    print(f"attempts: {attempts}; " + (f"DIFFERENT: {different}" if different else f"all {2 * len(killed)} files are equal"))
    if different:
        sys.exit(1)
    shutil.rmtree(folder)


def _start_and_kill(runs: list[Run], seconds: float, runners: list[subprocess.Popen], *, spare_runs: bool) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.attack.runner import grid\n"
        "from experiments.scheduler import run_all; run_all(grid(Path(sys.argv[1])))"
    )
    root = runs[0].root
    # A session of its own: the runner's programs are in its process group and can be killed without the runner.
    runner = subprocess.Popen([sys.executable, "-c", program, str(root)], cwd=ROOT, start_new_session=True)
    runners.append(runner)
    time.sleep(seconds)
    runner.kill()
    runner.wait()
    if not spare_runs:  # including programs that an earlier runner started
        for each in runners:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
    done = ", ".join(f"{run.curve.slug} {steps_done(run):,}" for run in runs)
    print(f"killed the runner{'' if spare_runs else ' and its runs'} after {seconds:.1f} s: {done}", flush=True)


if __name__ == "__main__":
    main(kills=int(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0)
