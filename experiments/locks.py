"""A lock on a run's folder, so that two programs never work in it at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Not ".running", which the programs in examples/ lock: they must not wait for the runner that started them.
NAME = ".lock"


class LocksMissingError(RuntimeError):
    """This system has no file locks that a child process can inherit."""


@contextmanager
def lock_file(folder: Path) -> Iterator[IO[str]]:
    """Open the lock file of a folder, which is created if needed. The lock is not taken yet: see `take`.

    A lock that was taken is free again once every process that inherited the file has closed it. So a program keeps the
    lock of its folder even if its runner is killed.

    Raises:
        LocksMissingError: The system has no ``fcntl``.
    """
    if fcntl is None:
        raise LocksMissingError(
            "runs need file locks (Python's fcntl module), which this system does not have: use Linux, macOS or WSL for "
            "`run` and `demos`; the other commands work here, too"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("w") as file:
        yield file


def take(file: IO[str], *, wait: bool = False) -> bool:
    """Take the lock.

    Args:
        file: From `lock_file`.
        wait: Wait until the lock is free.

    Returns:
        Whether the lock was taken; always True with ``wait``.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
