"""Optional packages. They are loaded on first use, and the error for a missing one has the command that installs it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, which the extra ``extra`` of this package installs.

    Raises:
        ImportError: The module is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the package is there; something inside it is not
        package = module.split(".")[0]
        raise ImportError(
            f"this needs the package {package!r}, which is not installed: run pip install 'dm2-wrappers[{extra}]'",
            name=error.name,
        ) from error


@dataclass(frozen=True)
class Finding:
    """One requirement. ``detail`` is its version or place if it is installed, and otherwise what to do."""

    name: str
    ok: bool
    detail: str


def import_finding(name: str, found: str, module: str, function: str | None = None) -> Finding:
    """Check that a module imports and, if given, that its function runs. Installed packages may be incompatible."""
    try:
        value: Any = importlib.import_module(module)
        if function is not None:
            getattr(value, function)()
    except Exception as error:  # whatever someone else's package raises when it is imported
        reason = " ".join(str(error).split())[:200]
        return Finding(name, False, f"cannot be imported ({type(error).__name__}: {reason}): reinstall the package it names")
    return Finding(name, True, found)
