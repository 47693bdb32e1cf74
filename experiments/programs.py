"""Programs in separate processes: their command line, their environment variables, and how they end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import IO, Any

from experiments.plan import ROOT

POLL_SECONDS = 0.1


def command_line_arguments(options: Mapping[str, Any]) -> list[str]:
    """Options as command-line arguments: True becomes ``--name``, False ``--no-name``."""
    arguments: list[str] = []
    for key, value in options.items():
        if isinstance(value, bool):
            arguments.append(f"--{key}" if value else f"--no-{key}")
        else:
            arguments += [f"--{key}", str(value)]
    return arguments


def run_program(command: list[str], log: Path, lock: IO[str], stop: Event) -> int:
    """Run a program until it ends, or until ``stop`` is set.

    Args:
        command: The program and its arguments.
        log: The file to append its output to.
        lock: The lock of its folder. The program inherits it: it may outlive a killed runner, and the next runner must
            wait for it.
        stop: Terminates the program.

    Returns:
        The exit code.
    """
    with log.open("a") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=_single_thread_environment(),
            pass_fds=(lock.fileno(),),
        )
    try:
        while process.poll() is None and not stop.wait(POLL_SECONDS):
            pass
    finally:  # also when a cluster cancels the task
        if process.poll() is None:
            process.terminate()
        code = process.wait()
    return code


def last_lines(path: Path, count: int = 8) -> str:
    """The end of a text file."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:])


def _single_thread_environment() -> dict[str, str]:
    """One thread per program: the networks are small, and programs that run side by side would slow each other down."""
    own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **own}
