"""Reading NumPy's ``.npz`` archives that may be damaged or hostile.

``np.load`` trusts what an archive says. Here nothing is allocated before the sizes that the archive and the arrays' headers
claim were compared with each other, nothing is unpickled, and every fault is one sentence.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAX_SENTENCE = 200  # characters of a reason; a damaged file may put anything into it
_MAX_HEADER = 1024  # bytes; NumPy writes 118 for the arrays that we read
_MAX_SWELLING = 1032  # deflate makes no byte into more
_CHUNK = 2**20
# How zipfile, zlib and NumPy fail on damaged files. Errors that only a mistake in a program raises are not among them.
DAMAGE = (
    *(ValueError, LookupError, ArithmeticError, RuntimeError, OSError, EOFError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


class UnusableFileError(ValueError):
    """Why a file cannot be used, in one short sentence without control characters."""

    def __init__(self, reason: object) -> None:
        super().__init__(one_sentence(reason))


def one_sentence(reason: object) -> str:
    """Any text on one line, without control characters, and not too long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(reason)[: 4 * MAX_SENTENCE]).split())
    return text if len(text) <= MAX_SENTENCE else f"{text[: MAX_SENTENCE - 3]}..."


def check_readable(path: Path, kind: str) -> None:
    """Check that a path is a file.

    Raises:
        FileNotFoundError: There is nothing.
        IsADirectoryError: It is a folder.
        PermissionError: It may not be looked at.
        UnusableFileError: It is a pipe or a device.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with open(path, "rb"):
                return
    except PermissionError:
        raise PermissionError(errno.EACCES, f"There is no permission to read this {kind}", str(path)) from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, f"This is a folder, but a {kind} was expected; name a file in it", str(path))
    raise UnusableFileError("it is not a regular file")


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """Open an archive; whatever goes wrong while the block reads it is an ``UnusableFileError``, too.

    Raises:
        UnusableFileError: It is not an archive, or a damaged one.
    """
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise UnusableFileError("it is not an .npz archive, or only part of one; save or copy it again")
            with zipfile.ZipFile(file) as archive:
                yield archive
    except UnusableFileError:
        raise
    except DAMAGE as error:
        raise UnusableFileError(damaged(error)) from None


def damaged(error: BaseException) -> str:
    """The sentence about one of the errors in ``DAMAGE``."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    return f"it is damaged ({type(error).__name__}: {error}); save or copy it again"


def entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """An archive's entry, if it can be read safely.

    Raises:
        UnusableFileError: It is missing, there twice, encrypted, compressed in another way than NumPy does, or claims a size
            that it cannot have.
    """
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        raise UnusableFileError(f"it has {len(found) or 'no'} entries named {name!r}, but one was expected")
    (info,) = found
    if info.flag_bits & 1:
        raise UnusableFileError(f"its entry {name!r} is encrypted; save it without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may swell without bounds
        raise UnusableFileError(f"its entry {name!r} is compressed in a way that NumPy does not use")
    stored = info.compress_type == zipfile.ZIP_STORED
    if info.file_size > (info.compress_size if stored else _MAX_SWELLING * (info.compress_size + 1)):
        raise UnusableFileError(f"its entry {name!r} claims {info.file_size:,} bytes, but has room for fewer; copy it again")
    return info


def read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """All bytes of an entry: exactly as many as it claims.

    Raises:
        UnusableFileError: It holds fewer.
    """
    with archive.open(info) as stream:
        # With a number, no more is decompressed than that; without one, zipfile decompresses first and cuts then.
        content = stream.read(info.file_size)
    if len(content) != info.file_size:
        raise UnusableFileError(f"its entry {info.filename!r} ends early; save or copy it again")
    return content


@dataclass(frozen=True)
class StoredArray:
    """What an array's header says, which has been compared with the entry's size.

    Attributes:
        info: The archive's entry.
        shape: The array's.
        dtype: The array's: numbers, or a string.
        fortran_order: Whether the first index changes fastest.
        start: Where the numbers begin in the entry.
    """

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    start: int

    @property
    def nbytes(self) -> int:
        """The array's size in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, archive: zipfile.ZipFile) -> NDArray[Any]:
        """The array itself, in the machine's byte order.

        Raises:
            UnusableFileError: The entry ends early, or is damaged.
        """
        result = np.empty(self.shape[::-1] if self.fortran_order else self.shape, self.dtype)
        content, filled = result.reshape(-1).view(np.uint8), 0
        with archive.open(self.info) as stream:
            stream.read(self.start)
            while filled < len(content) and (chunk := stream.read(min(_CHUNK, len(content) - filled))):
                content[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
                filled += len(chunk)
        if filled != len(content):
            raise UnusableFileError(f"its entry {self.info.filename!r} ends early; save or copy it again")
        if self.dtype.kind == "b" and len(content) and content.max() > 1:
            raise UnusableFileError(f"its entry {self.info.filename!r} holds bytes that are neither True nor False")
        result = result.T if self.fortran_order else result
        return result.astype(self.dtype.newbyteorder("="), copy=False)


def stored_array(archive: zipfile.ZipFile, name: str) -> StoredArray:
    """The header of the array ``name``.

    Raises:
        UnusableFileError: There is no such array, it holds Python objects, or its header is damaged or claims another size
            than the entry has.
    """
    info = entry(archive, f"{name}.npy")
    with archive.open(info) as stream:
        start, shape, descr, fortran_order = array_header(stream, name)
    if descr == "|O":
        raise UnusableFileError(f"its array {name!r} holds pickled Python objects, which are never read")
    if not re.fullmatch(r"\|[biu]1|[<>=]([iu][248]|f[248]|U\d{1,8})", descr):
        raise UnusableFileError(f"its array {name!r} must hold numbers, but its dtype is {descr}")
    result = StoredArray(info, shape, np.dtype(descr), fortran_order, start)
    if start + result.nbytes != info.file_size:
        raise UnusableFileError(
            f"its array {name!r} of shape {shape} needs {result.nbytes:,} bytes, but the file has "
            f"{info.file_size - start:,}; save or copy it again"
        )
    return result


def array_header(stream: IO[bytes], name: str) -> tuple[int, tuple[int, ...], str, bool]:
    """The header of an array in NumPy's format: where its contents start, shape, dtype, and whether in Fortran's order.

    Raises:
        UnusableFileError: It is not in NumPy's format, or damaged.
    """
    magic = stream.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\1\0", b"\2\0"):
        raise UnusableFileError(f"its array {name!r} is not in NumPy's format")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _MAX_HEADER:
        raise UnusableFileError(f"its array {name!r} has a header of {length:,} bytes, more than NumPy writes")
    try:
        fields = ast.literal_eval(stream.read(length).decode("latin1").strip())
        descr, shape, fortran_order = fields["descr"], fields["shape"], fields["fortran_order"]
    except (ValueError, SyntaxError, TypeError, LookupError, RecursionError, MemoryError):
        raise UnusableFileError(f"its array {name!r} has a damaged header; save or copy it again") from None
    whole = type(shape) is tuple and len(shape) <= 8 and all(type(n) is int and 0 <= n < 2**48 for n in shape)
    if not whole or type(descr) is not str:
        raise UnusableFileError(f"its array {name!r} has a damaged header (shape {shape}, dtype {descr}); copy it again")
    return 8 + width + length, shape, descr, fortran_order is True
