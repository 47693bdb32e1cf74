"""Where a run's numbers come from: demonstrations, package versions, commit and machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

from dm2_wrappers.demonstrations import Demonstrations
from experiments.plan import ROOT

PACKAGES = ("torch", "stable-baselines3", "sb3-contrib", "jax", "jaxmarl", "gymnasium", "pettingzoo", "numpy", "torchrl")


def describe_demonstrations(path: Path) -> dict[str, Any]:
    """A file of demonstrations in a few numbers."""
    demos = Demonstrations.load(path)
    reported = demos.won >= 0
    return {
        "file": str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path),
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "episodes": len(demos),
        # The agents of mixed demonstrations won different battles: the mean over agents.
        "win_rate": float(demos.won.mean(where=reported)) if reported.any() else None,
        "mean_return": demos.mean_return,
        "mean_length": demos.mean_length,
        "style": demos.style,
    }


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that affect the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """The operating system, processor and number of cores."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def commit() -> str:
    """The checkout's commit, with "-dirty" if files differ from it; "unknown" outside a checkout.

    Files of results/ do not count: no run reads them, and runs that are begun anew replace them.
    """
    try:
        name = _git("describe", "--always", "--abbrev=12")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}-dirty" if changed else name


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
