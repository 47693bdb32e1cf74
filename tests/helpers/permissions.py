"""Being somebody who may not read or write a path, also where the tests run as root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_NOBODY = 65534


@contextlib.contextmanager
def without_permission(path: Path) -> Iterator[None]:
    """Take all permissions from a path for the block; root, who needs none, becomes another user meanwhile."""
    mode, root = path.stat().st_mode, os.geteuid() == 0
    for folder in path.parents if root else ():  # pytest's folders are root's alone
        if folder.stat().st_uid == 0 and folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)
    path.chmod(0)
    if root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode & 0o7777)
