"""Optional packages: loaded on first use; a missing one is one sentence with the command that installs it."""

from __future__ import annotations

import importlib
from types import ModuleType


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
