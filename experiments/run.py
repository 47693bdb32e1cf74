"""One run: start its program in a separate process, and record in ``run.json`` how the run was made."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from typing import Any, Literal

from experiments.locks import lock_file, take
from experiments.plan import ROOT, Run
from experiments.programs import POLL_SECONDS, command_line_arguments, last_lines, run_program
from experiments.provenance import commit, describe_demonstrations, machine, versions
from experiments.run_files import RunFolderError, as_text, checksum, is_done, read_run_json, write_json


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: The run.
        state: "done", "failed", "stopped", or "busy" if another process works on it.
        message: Why it failed.
    """

    run: Run
    state: Literal["done", "failed", "stopped", "busy"]
    message: str = ""


def execute(run: Run, *, stop: Event | None = None, wait: bool = True) -> Outcome:
    """Do the run, or continue it from its checkpoint. A finished run is not repeated.

    Args:
        run: The run.
        stop: Stops the run once it is set; the next attempt continues from the checkpoint.
        wait: Wait while another process works on this run. Otherwise the outcome is "busy".

    Raises:
        RunFolderError: The folder holds a run with other options or demonstrations, another seed of the curve has
            others, or a file is damaged.
        LocksMissingError: The system has no file locks.
    """
    stop = stop or Event()
    folder = run.folder
    with lock_file(folder) as lock:
        while not take(lock):
            if not wait:
                return Outcome(run, "busy")
            if stop.wait(POLL_SECONDS):
                return Outcome(run, "stopped")
        if is_done(run) or stop.is_set():  # another process may have finished it in the meantime
            return Outcome(run, "done" if is_done(run) else "stopped")
        demos = run.options.get("demos")
        if demos is not None and not (ROOT / demos).is_file():
            return Outcome(run, "failed", f"{demos} is missing: run {_command_for_demonstrations(run)}")
        demonstrations = None if demos is None else describe_demonstrations(ROOT / demos)
        command = [sys.executable, "-u", str(ROOT / "examples" / run.curve.program), *command_line_arguments(run.arguments)]
        # The program writes this path down, so it is relative where the folder is in the checkout.
        command += ["--run", str(folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder)]
        record = _begin(run, command, demonstrations)
        started = time.monotonic()
        code = run_program(command, folder / "log.txt", lock, stop)
        record["seconds"] = round(record["seconds"] + time.monotonic() - started, 1)
        state: Literal["done", "failed", "stopped"] = "done" if code == 0 and is_done(run) else "failed"
        # Ctrl-C reaches the program, too: it ends by the signal, or with exit code 130.
        if state != "done" and (stop.is_set() or code in (-signal.SIGINT, 128 + signal.SIGINT)):
            state = "stopped"
        if state == "failed":
            log = folder / "log.txt"
            record["failed"] = f"exit code {code}; the end of {log}:\n{last_lines(log)}"
        write_json(folder / "run.json", record)
        return Outcome(run, state, record.get("failed", ""))


def _command_for_demonstrations(run: Run) -> str:
    if run.panel.env:
        return f"examples/record_demos.py --env {run.panel.env} and move its file there"
    return f"python -m experiments demos {run.panel.scenario}" + ("" if run.backend == "smax" else f" --env {run.backend}")


def _begin(run: Run, command: list[str], demonstrations: dict[str, Any] | None) -> dict[str, Any]:
    """Write ``run.json`` before the program starts. Refuse a folder, or a curve, with other options or demonstrations."""
    record: dict[str, Any] = {"seconds": 0.0, "attempts": 0, **read_run_json(run.folder)}
    record.pop("failed", None)
    options = as_text(run.options)
    if record.get("options", options) != options:
        raise RunFolderError(
            f"{run.folder} holds a run with the options {record['options']}, but this run has {options}; "
            "move the folder away, or choose another folder with --results"
        )
    for path in sorted(run.folder.parent.glob("seed*/run.json")):
        other = read_run_json(path.parent)
        others = (checksum(other["demonstrations"]), _without_seed(other["options"]))
        if others != (checksum(demonstrations), _without_seed(options)):
            raise RunFolderError(
                f"all seeds of a curve need equal options and demonstrations, but {path.parent} has "
                f"{_without_seed(other['options'])} and {other['demonstrations']}, while this run has "
                f"{_without_seed(options)} and {demonstrations}; restore the earlier options and demonstrations, or "
                "choose another folder with --results"
            )
    if any(run.folder.glob("checkpoint.*")) and record.get("commit", commit()) != commit():
        record["earlier_commits"] = sorted({*record.get("earlier_commits", ()), record["commit"]})
    record |= {
        "options": options,
        "demonstrations": demonstrations,
        "command": shlex.join(["python", *(word.removeprefix(f"{ROOT}/") for word in command[2:])]),
        "attempts": record["attempts"] + 1,
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(run.folder / "run.json", record)
    return record


def _without_seed(options: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in options.items() if key != "seed"}
