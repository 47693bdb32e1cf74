"""Writing files atomically: completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dm2_wrappers import _checks

_STALE_SECONDS = 3600.0  # a temporary file that nobody has written to for this long was left by a killed process
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's quota, the largest file allowed


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that takes its place when the block ends without an error.

    Another reader sees the old file or the new one, never a part of it. The permissions of an existing file are kept,
    and a symbolic link stays a link. Several threads or processes may write to one path: the last one to finish wins.

    Args:
        path: The file to write. Its folder is made if needed.
        mode: "wb" or "w".
        **options: For ``open``, such as ``newline=""``.

    Raises:
        TypeError: ``path`` is not the name of a file.
        OSError: The file cannot be written, for example because the disk is full, ``path`` is a folder, or permission
            is missing (``PermissionError``). It names ``path``, and any older file is unchanged.
    """
    target = Path(os.path.realpath(_checks.path("path", path)))
    permissions = _permissions(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")

    def create(name: str, flags: int) -> int:  # never readable by more people than the old file, not even for a moment
        return os.open(name, flags, 0o666 if permissions is None else permissions & 0o666)

    try:
        # "x": the file must be new. The umask applies, as to any new file.
        with open(temporary, mode.replace("w", "x"), opener=create, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if permissions is not None:
            os.chmod(temporary, permissions)
        temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if (full := _full_disk(error)) is not None:
            # NumPy and zipfile raise errors of their own while they close a file on a full disk.
            sentence = "There is no room for the file, and any older one is unchanged; free some space and save again"
            raise OSError(full.errno, sentence, str(path)) from None
        if isinstance(error, OSError) and error.filename == str(temporary):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    _sync_folder(target.parent)


def _permissions(target: Path) -> int | None:
    """The permission bits of an existing file; None if there is none.

    Raises:
        OSError: It is a folder, or may not be written.
    """
    try:
        found = target.stat().st_mode
    except FileNotFoundError:
        return None
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "This is a folder; name a file in it", str(target))
    # Renaming would replace a read-only file all the same.
    if not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, "This file is write-protected; choose another name", str(target))
    return found & 0o7777


def _full_disk(error: BaseException | None) -> OSError | None:
    """The error itself, or the one during whose handling it was raised, if it says that there is no room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__context__
    return None


def _remove_stale(target: Path) -> None:
    for old in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 16}.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _STALE_SECONDS:
                old.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the rename survive a power failure, where folders can be synchronized."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
