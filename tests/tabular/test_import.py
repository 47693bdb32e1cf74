"""The package is imported without heavy ones, and has all its names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dm2_wrappers import tabular


def test_import_is_light():
    program = (
        "import sys, dm2_wrappers.tabular; "
        "print(*sorted({*sys.modules} & {'scipy', 'torch', 'gymnasium', 'pettingzoo', 'matplotlib'})); "
        "import dm2_wrappers.compatibility; "
        "print(*sorted({*sys.modules} & {'scipy', 'matplotlib', 'jax', 'stable_baselines3'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
    assert all(getattr(tabular, name) is not None for name in tabular.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Gam'"):
        tabular.Gam  # noqa: B018
