"""The demonstrations that experiments need: teams of several independent trainings, recorded at several win rates.

All files are in ``demos_data/full/<scenario>/``, which git ignores; `experts_table` lists them with their checksums.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from experiments.experts import MEAN_FIRST_STEPS, QMIX_RECORDING_LEVELS, RECORDING_LEVELS, STYLE_TEAMS
from experiments.locks import lock_file, take
from experiments.plan import ROOT, demos_path
from experiments.programs import POLL_SECONDS, command_line_arguments, run_program
from experiments.provenance import describe_demonstrations
from experiments.run_files import write_json
from experiments.settings import QMIX_OPTIONS
from experiments.tables import row


def make(scenario: str, *, backend: str = "smax", seeds: int = 5, jobs: int = 2, episodes: int = 1000) -> list[str]:
    """Train up to ``seeds`` teams and record each at all levels.

    Finished trainings are not repeated, and interrupted ones continue. In the scenarios of ``QMIX_RECORDING_LEVELS`` one
    more team is trained by QMIX.

    Returns:
        A sentence for each training that failed.

    Raises:
        ValueError: The scenario has no recording levels.
    """
    if scenario not in RECORDING_LEVELS:
        raise ValueError(f"{scenario!r} has no recording levels: choose one of {sorted(RECORDING_LEVELS)}")
    numbers = training_seeds(f"{backend}:{scenario}", seeds)
    trainings = [*(f"seed{seed}" for seed in numbers), *(["qmix0"] if scenario in QMIX_RECORDING_LEVELS else [])]
    failed, stop = [], Event()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(_train, f"{backend}:{scenario}", training, episodes, stop) for training in trainings]
        try:
            for future in futures:
                try:
                    print(future.result(), flush=True)
                except RuntimeError as error:  # the other trainings continue
                    failed.append(str(error))
        except BaseException:  # for example Ctrl-C: stop the running trainings and start no other
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def training_seeds(env: str, most: int = 5) -> list[int]:
    """The seeds of an environment's trainings."""
    return list(STYLE_TEAMS.get(env, range(most)))[:most]


def experts_table(backend: str = "smax", before: str = "") -> str:
    """A table of all demonstration files, in the repository and in ``demos_data/full``, with SHA-256 checksums.

    Args:
        backend: The backend of the files.
        before: The table so far. Its lines about files that this machine does not have are kept.
    """
    head = [row(("file", "episodes", "win rate", "mean return", "mean length", "SHA-256")), "|---|---|---|---|---|---|"]
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in before.splitlines()[len(head) :]}
    folder = ROOT / "demos_data"
    for path in [*folder.glob(f"{backend}_*.npz"), *folder.glob(f"full/{backend}_*/*/*.npz")]:
        facts = describe_demonstrations(path)
        rate = "" if facts["win_rate"] is None else f"{facts['win_rate']:.3f}"
        name = str(Path(str(facts["file"])).relative_to("demos_data"))
        lines[name] = row(
            (
                name,
                facts["episodes"],
                rate,
                f"{facts['mean_return']:.2f}",
                f"{facts['mean_length']:.1f}",
                f"`{facts['sha256']}`",
            )
        )
    return "\n".join([*head, *(lines[name] for name in sorted(lines, key=lambda name: ("/" in name, name)))]) + "\n"


def _train(env: str, training: str, episodes: int, stop: Event) -> str:
    folder = ROOT / demos_path(env, f"{training}/any").parent
    kind, seed, scenario = training[:4], int(training[4:]), env.partition(":")[2]
    levels, most, interval = (QMIX_RECORDING_LEVELS if kind == "qmix" else RECORDING_LEVELS)[scenario]
    finished = folder / "finished.json"  # holds what was asked for: a training that gets more levels continues
    if _finished_with(finished) == [list(levels), most]:
        return f"{folder}: done before{_missing_levels(folder, levels)}"
    options: dict[str, object] = {"env": env, "seed": seed, "run": folder}
    if kind == "qmix":
        file = demos_path(env, f"{training}/any").name.replace("_any", "")
        options |= {
            "steps": most,
            "n-steps": QMIX_OPTIONS[scenario]["n-steps"],
            "eval-every": interval,
            "eval-episodes": 128,
        }
        options |= {"only-levels": True, "record": episodes, "record-path": folder / file}
    else:
        options |= {"max-steps": most, "look-every": interval, "episodes": episodes, "out": folder}
        options |= {"mean-first": MEAN_FIRST_STEPS[env, seed]} if (env, seed) in MEAN_FIRST_STEPS else {}
    program = "qmix_torchrl.py" if kind == "qmix" else "record_demos.py"
    command = [sys.executable, "-u", str(ROOT / "examples" / program), *command_line_arguments(options)]
    command += ["--levels", *map(str, levels)]
    with lock_file(folder) as lock:
        while not take(lock):
            if stop.wait(POLL_SECONDS):
                raise RuntimeError(f"{folder}: stopped")
        code = run_program(command, folder / "log.txt", lock, stop)
    if code != 0:
        raise RuntimeError(f"{folder}: failed with exit code {code}, see log.txt")
    write_json(finished, [levels, most])
    return f"{folder}: done{_missing_levels(folder, levels)}"


def _finished_with(path: Path) -> object:
    """The levels and steps that a finished training was asked for; None if it has not finished."""
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except ValueError:
        raise RuntimeError(f"{path} is damaged: remove it, and the training continues from its checkpoint") from None


def _missing_levels(folder: Path, levels: Sequence[float]) -> str:
    """The levels without a file: the win rate jumped over them or never reached them."""
    missing = [f"{level:.0%}" for level in levels if not list(folder.glob(f"*_win{round(100 * level):02d}.npz"))]
    return f", without files at {', '.join(missing)}" if missing else ""
