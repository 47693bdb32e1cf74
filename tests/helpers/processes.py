"""Processes that tests start, and whether they end."""

import time


def children(venv):
    return [process.pid for process in venv.workers.processes]


def offspring(pid):
    """The processes that a process has started."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def gone(pid, seconds=10.0):
    """Whether a process ends within that time (one that nobody has waited for counts as ended)."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False
