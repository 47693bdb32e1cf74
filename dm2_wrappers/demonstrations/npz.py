"""The demonstrations file: one compressed ``.npz`` without pickled objects.

Version 1 holds, for S rows, K agents, D features (the widest agent's) and E episodes,

- ``observations`` float32 [S, K, D]: what each agent saw before its action; 0 in padding and for the dead,
- ``alive`` bool [S, K], ``rewards`` float32 [S, K]: the team's environment reward, in each agent's column,
- ``actions`` int64 [S, K], or float32 [S, K, A] where actions are continuous,
- ``offsets`` int64 [K, E + 1]: agent k's episode e is rows ``offsets[k, e]`` to ``offsets[k, e + 1]`` of column k,
- ``won`` int8 [K, E]: 1 won, 0 lost, -1 not reported,
- ``metadata``: a JSON string with ``format_version``, ``env_id``, ``agents``, ``sizes`` (each agent's own number of
  features), ``style`` ("concurrent", "shuffled", "mixed"), ``policy`` (provenance), ``win_rate`` and ``seed``.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from dm2_wrappers import _checks
from dm2_wrappers._files import replacing
from dm2_wrappers.demonstrations import archive, validation
from dm2_wrappers.demonstrations.archive import StoredArray, UnusableFileError

FORMAT_VERSION = 1
MAX_BYTES = 2**30  # of arrays; 1,000 episodes of SMAX's 5m_vs_6m have 2**27
MAX_RATIO = 32  # of arrays to the file; recordings on SMAX, four fifths of them zeros, have 11
_MAX_METADATA = 2**20  # characters
_ARRAYS = {
    "observations": "float32",
    "alive": "bool",
    "actions": "int64 or float32",
    "rewards": "float32",
    "offsets": "int64",
    "won": "int8",
}


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write a file whole or not at all.

    Raises:
        ValueError: The metadata hold something that JSON cannot, or too much.
        OSError: The file cannot be written.
    """
    text = json.dumps({**validation.plain_metadata(metadata), "format_version": FORMAT_VERSION}, allow_nan=False)
    if len(text) > _MAX_METADATA:
        raise ValueError(
            f"the metadata of these demonstrations take {len(text):,} characters of JSON, but a file holds at most "
            f"{_MAX_METADATA:,}; leave out what is not provenance"
        )
    # None of these dtypes can hold a Python object, so nothing is ever pickled.
    converted: dict[str, Any] = {
        name: np.asarray(arrays[name], arrays[name].dtype if " or " in dtype else dtype) for name, dtype in _ARRAYS.items()
    }
    with replacing(path) as file:
        np.savez_compressed(file, metadata=text, **converted)


def load(path: str | os.PathLike[str], max_bytes: int | None = None) -> dict[str, Any]:
    """The arguments of ``Demonstrations`` that a file holds; see :meth:`Demonstrations.load`."""
    path, max_bytes = _checks.path("path", path), _checks.integer("max_bytes", max_bytes, least=1, none=True)
    try:
        archive.check_readable(path, "demonstrations file")
        with archive.opened(path) as file:
            return _read(file, max_bytes or max(MAX_BYTES, MAX_RATIO * path.stat().st_size))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no demonstrations file at {path}; record some with Demonstrations.record(...) and .save() them there"
        ) from None
    except ValueError as error:
        raise not_usable(path, error) from None


def not_usable(path: str | os.PathLike[str], error: ValueError) -> ValueError:
    """The same error with the file's name, in one short sentence."""
    return ValueError(f"{path} is not a usable demonstrations file: {archive.one_sentence(error)}")


def _read(file: zipfile.ZipFile, max_bytes: int) -> dict[str, Any]:
    """The arguments of ``Demonstrations``. Headers come first: arrays are read only if they fit together.

    Raises:
        ValueError: Something is not as this module's docstring says.
    """
    held = [name.removesuffix(".npy") for name in file.namelist()]
    if missing := sorted({"metadata", *_ARRAYS} - set(held)):
        raise UnusableFileError(f"it lacks {', '.join(missing)} and has {', '.join(sorted(held)) or 'nothing'}")
    agents, sizes, metadata = _metadata(file)
    stored = {name: archive.stored_array(file, name) for name in _ARRAYS}
    for name, dtype in _ARRAYS.items():
        found = stored[name].dtype.newbyteorder("=")
        if found.name not in dtype.split(" or "):
            raise UnusableFileError(f"its {name} must be {dtype}, but they are {found}")
    validation.check_shapes(agents, sizes, {name: array.shape for name, array in stored.items()})
    total = sum(array.nbytes for array in stored.values())
    if total > max_bytes:
        raise UnusableFileError(
            f"its arrays take {total:,} bytes, over max_bytes={max_bytes:,}; pass a larger max_bytes if you trust the file"
        )
    arrays = {name: array.read(file) for name, array in stored.items()}
    arrays["padded_observations"] = arrays.pop("observations")
    return {"agents": agents, "sizes": sizes, "metadata": metadata, **arrays}


def _metadata(file: zipfile.ZipFile) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
    """The agents, their sizes, and the other metadata."""
    header = _parsed(_text(file, archive.stored_array(file, "metadata")))
    try:
        version, agents, sizes = header.pop("format_version"), header.pop("agents"), header.pop("sizes")
    except (TypeError, AttributeError, KeyError):
        raise UnusableFileError("its metadata are not JSON with format_version, agents and sizes") from None
    if version != FORMAT_VERSION:
        raise UnusableFileError(
            f"it is of format version {version}, but this version of dm2_wrappers reads {FORMAT_VERSION}; "
            f"upgrade dm2_wrappers or record it again"
        )
    return validation.agent_names(agents), validation.feature_sizes(sizes), header


def _text(file: zipfile.ZipFile, stored: StoredArray) -> str:
    if stored.dtype.kind != "U" or stored.shape != ():
        raise UnusableFileError("its metadata are not one string")
    if stored.nbytes > 4 * _MAX_METADATA:  # NumPy stores a character in four bytes
        raise UnusableFileError(f"its metadata have {stored.nbytes // 4:,} characters, more than {_MAX_METADATA:,}")
    content = archive.read(file, stored.info)[stored.start :]
    try:
        return content.decode("utf-32-be" if stored.dtype.byteorder == ">" else "utf-32-le").rstrip("\0")
    except UnicodeDecodeError:
        raise UnusableFileError("its metadata are damaged; save or copy it again") from None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableFileError(f"its metadata are not JSON ({error})") from None
