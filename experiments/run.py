"""One run: a program in a process of its own, in a folder that tells all about it.

The folder holds what the program writes (config.json, evaluations.csv, checkpoint.zip, final.json), its ``log.txt``,
and ``run.json``: the command, versions, commit, machine and how long it took. Whoever works in it holds ``.lock``.
"""

from __future__ import annotations

import csv
import fcntl
import importlib.metadata
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import IO, Any, Literal

from dm2_wrappers.demonstrations import Demonstrations
from experiments.plan import Run

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "stable-baselines3", "sb3-contrib", "jax", "jaxmarl", "gymnasium", "pettingzoo", "numpy", "torchrl")


_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Outcome:
    """How a run went: ``done``, ``failed`` with a message, ``stopped``, or ``busy``: another process is at it."""

    run: Run
    state: Literal["done", "failed", "stopped", "busy"]
    message: str = ""


def execute(run: Run, *, stop: Event | None = None, wait: bool = True) -> Outcome:
    """Do the run, or what is left of it; one that is done, here or meanwhile in another process, is not repeated.

    Args:
        run: What to do.
        stop: Ends it early, once it is set; the next attempt goes on from its checkpoint.
        wait: For another process that is at this run; else the outcome is ``busy``.

    Raises:
        ValueError: The folder's run, or another one of the curve, has other options or demonstrations.
    """
    stop = stop or Event()
    folder = run.folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        # The process inherits the lock: it outlives a runner that was killed, and the next runner waits for it.
        while not _locked(lock):
            if not wait:
                return Outcome(run, "busy")
            if stop.wait(_LOOK_SECONDS):
                return Outcome(run, "stopped")
        if is_done(run) or stop.is_set():
            return Outcome(run, "done" if is_done(run) else "stopped")
        demos = run.options.get("demos")
        if demos is not None and not (ROOT / demos).is_file():
            return Outcome(run, "failed", f"{demos} is missing: run {_makes_demonstrations(run)}")
        demonstrations = None if demos is None else describe(ROOT / demos)
        command = [sys.executable, "-u", str(ROOT / "examples" / run.curve.program), *words(run.options)]
        # Relative to the checkout, where it is inside: the program writes the path down.
        command += ["--run", str(folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder)]
        facts = _begin(run, command, demonstrations)
        begun = time.monotonic()
        code = _finish(command, folder / "log.txt", lock, stop)
        facts["seconds"] = round(facts["seconds"] + time.monotonic() - begun, 1)
        state: Literal["done", "failed", "stopped"] = "done" if code == 0 and is_done(run) else "failed"
        if state != "done" and (stop.is_set() or code == -signal.SIGINT):  # Ctrl-C reaches the program, too
            state = "stopped"
        if state == "failed":
            facts["failed"] = f"exit code {code}; the end of {folder / 'log.txt'}:\n{_tail(folder / 'log.txt')}"
        write_json(folder / "run.json", facts)
        return Outcome(run, state, facts.get("failed", ""))


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _finish(command: list[str], log: Path, lock: IO[str], stop: Event) -> int:
    """The program's exit code, when it has ended by itself or by ``stop``."""
    with log.open("a") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=one_thread(),
            pass_fds=(lock.fileno(),),
        )
    try:
        while process.poll() is None and not stop.wait(_LOOK_SECONDS):
            pass
    finally:  # also where the task of a cluster is cancelled
        if process.poll() is None:
            process.terminate()
        code = process.wait()
    return code


def _makes_demonstrations(run: Run) -> str:
    backend = run.env.partition(":")[0]
    return f"python -m experiments demos {run.panel.scenario}" + ("" if backend == "smax" else f" --env {backend}")


def words(options: dict[str, Any]) -> list[str]:
    """Options as a command line: flags for booleans, ``--no-`` ones for False."""
    out: list[str] = []
    for key, value in options.items():
        if isinstance(value, bool):
            out.append(f"--{key}" if value else f"--no-{key}")
        else:
            out += [f"--{key}", str(value)]
    return out


def is_done(run: Run) -> bool:
    """Whether its last file is there, made with these options."""
    return (run.folder / "final.json").is_file() and facts_of(run).get("options") == _as_text(run.options)


def facts_of(run: Run) -> dict[str, Any]:
    """What its run.json says; nothing before it began."""
    path = run.folder / "run.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def steps_done(run: Run) -> int:
    """The environment steps up to its newest evaluation."""
    rows = evaluations(run)
    return int(float(rows[-1]["step"])) if rows else 0


def evaluations(run: Run) -> list[dict[str, str]]:
    """The rows of its evaluations.csv; none before the first."""
    path = run.folder / "evaluations.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _as_text(options: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in options.items()}


def _unseeded(options: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in options.items() if key != "seed"}


def sum_of(demonstrations: dict[str, Any] | None) -> str | None:
    """Which demonstrations they were: the file's SHA-256."""
    return None if demonstrations is None else demonstrations["sha256"]


def _begin(run: Run, command: list[str], demonstrations: dict[str, Any] | None) -> dict[str, Any]:
    """Write down what is about to happen; refuse a folder, or a curve, of other options or demonstrations."""
    facts: dict[str, Any] = {"seconds": 0.0, "attempts": 0, **facts_of(run)}
    facts.pop("failed", None)
    options = _as_text(run.options)
    if facts.get("options", options) != options:
        raise ValueError(
            f"{run.folder} holds a run with the options {facts['options']}, but this one has {options}; "
            "move it away or choose another --results folder"
        )
    for path in sorted(run.folder.parent.glob("seed*/run.json")):
        other = json.loads(path.read_text())
        if (sum_of(other["demonstrations"]), _unseeded(other["options"])) != (sum_of(demonstrations), _unseeded(options)):
            raise ValueError(
                f"{path.parent} was done with {_unseeded(other['options'])} and demonstrations {other['demonstrations']}, "
                f"but this run has {_unseeded(options)} and {demonstrations}: seeds of one curve need the same; "
                "get those back or choose another --results folder"
            )
    if any(run.folder.glob("checkpoint.*")) and facts.get("commit", commit()) != commit():  # it is the work of several
        facts["earlier_commits"] = sorted({*facts.get("earlier_commits", ()), facts["commit"]})
    facts |= {
        "options": options,
        "demonstrations": demonstrations,
        "command": shlex.join(["python", *(word.removeprefix(f"{ROOT}/") for word in command[2:])]),
        "attempts": facts["attempts"] + 1,
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions()},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(run.folder / "run.json", facts)
    return facts


def describe(path: Path) -> dict[str, Any]:
    """A demonstrations' file in a few numbers."""
    demos = Demonstrations.load(path)
    return {
        "file": str(path.relative_to(ROOT)),
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "episodes": len(demos),
        # Of mixed demonstrations, whose agents won different battles, the mean over agents.
        "win_rate": float(demos.won.mean()) if (demos.won >= 0).all() else None,
        "mean_return": demos.mean_return,
        "mean_length": demos.mean_length,
        "style": demos.style,
    }


def versions() -> dict[str, str]:
    """Of the packages that decide the numbers, those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checkout's commit, marked where files differ from it; "unknown" outside of one."""
    try:
        git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def one_thread() -> dict[str, str]:
    """One thread a run: the networks are small, and runs side by side would only get in each other's way."""
    own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **own}


def write_json(path: Path, facts: Any) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(facts, indent=1) + "\n")
    temporary.replace(path)


def _tail(path: Path, lines: int = 8) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
