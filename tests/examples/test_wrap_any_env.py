"""The example that wraps an environment other than StarCraft runs as a user would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / "wrap_any_env.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("coefficient", ["1", "0"])
def test_wrap_any_env(coefficient):
    output = run(
        *("--steps", "200", "--rollout-episodes", "4", "--demonstrations", "10", "--evaluation-episodes", "10"),
        *("--coefficient", coefficient),
    )
    assert "10 demonstrated episodes, mean return" in output
    assert "200 steps" in output
    table = dict(line.rsplit("  ", 1) for line in output.splitlines()[-3:])
    means = [float(result.split(" +- ")[0]) for result in table.values()]
    experts, random, team = means
    assert experts > random + 4
    assert np.isfinite(team)
    assert f"c = {coefficient}" in [*table][2]


def test_wrap_any_env_explains_itself():
    output = run("--help")
    for word in ("--coefficient", "--steps", "discount", "Three agents must cover three landmarks"):
        assert word in output
