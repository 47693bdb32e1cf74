"""Ray is loaded on first use; without it, one sentence says what to install."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_RAY = """
import sys
import dm2_wrappers as dm2
assert "ray" not in sys.modules
sys.modules["ray"] = None
try:
    dm2.rllib
except ImportError as error:
    print(error)
"""


def test_ray_is_loaded_on_first_use_and_a_missing_one_is_one_sentence():
    done = subprocess.run([sys.executable, "-c", WITHOUT_RAY], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "this needs the package 'ray', which is not installed: run pip install 'dm2-wrappers[rllib]'\n"
