"""Keeps on disk what JAX compiles: to compile SMAX's step takes many seconds, to load it takes about one.

The folder is ``dm2_wrappers`` in the user's cache folder, unless the user has chosen one for JAX, for instance with the
environment variable ``JAX_COMPILATION_CACHE_DIR``. ``JAX_ENABLE_COMPILATION_CACHE=false`` turns the cache off.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

from dm2_wrappers._extras import require

# JAX's own limit of 1 s would leave out many programs, which take most of the time together.
_SHORTEST_COMPILATION = 0.0


def keep() -> None:
    """From now on, keep what JAX compiles in this process. Call it before JAX compiles anything."""
    jax = require("jax", "smax")
    if jax.config.jax_compilation_cache_dir is not None:
        return
    path = folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError:
        writable = False
    if writable:  # JAX would warn at each compilation
        jax.config.update("jax_compilation_cache_dir", str(path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST_COMPILATION)


def folder() -> Path:
    """The folder for this kind of CPU: compiled programs use instructions that another one may lack."""
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "dm2_wrappers" / f"jax_{hashlib.sha256(_cpu().encode()).hexdigest()[:12]}"


def _cpu() -> str:
    """The CPU's instructions where the system lists them, otherwise its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    listed = [line for line in lines if line.startswith(("flags", "Features"))]
    return platform.machine() + (listed[0] if listed else platform.processor())
