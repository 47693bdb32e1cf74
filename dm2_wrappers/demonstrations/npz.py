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
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dm2_wrappers._files import replacing

FORMAT_VERSION = 1
_ARRAYS = {
    "observations": np.float32,
    "alive": np.bool_,
    "actions": None,  # int64 or float32
    "rewards": np.float32,
    "offsets": np.int64,
    "won": np.int8,
}


def to_json(metadata: dict[str, Any]) -> str:
    """Metadata as a JSON string.

    Raises:
        ValueError: They hold something that JSON cannot.
    """
    try:
        return json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"demonstrations keep metadata as JSON, which cannot hold this: {error}") from None


def save(path: str | os.PathLike[str], arrays: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write one file, whole or not at all; see :meth:`Demonstrations.save`.

    Args:
        path: The file.
        arrays: The arrays named in the module's docstring.
        metadata: What JSON can hold; the format version is added.

    Raises:
        ValueError: The metadata hold something that JSON cannot.
    """
    text = np.array(to_json({**metadata, "format_version": FORMAT_VERSION}))
    dtypes = {**_ARRAYS, "actions": np.int64 if arrays["actions"].dtype.kind == "i" else np.float32}
    # None of these dtypes can hold a Python object, so nothing is ever pickled.
    converted: dict[str, Any] = {name: np.asarray(arrays[name], dtype) for name, dtype in dtypes.items()}
    with replacing(path) as file:
        np.savez_compressed(file, metadata=text, **converted)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of ``Demonstrations`` that a file holds; see :meth:`Demonstrations.load`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no demonstrations file at {path}; record some with Demonstrations.record(...) and .save() them there"
        )
    try:
        return _parse(_read(path))
    except ValueError as error:
        raise not_usable(path, error) from None


def not_usable(path: str | os.PathLike[str], error: ValueError) -> ValueError:
    """The same error with the file's name."""
    return ValueError(f"{path} is not a usable demonstrations file: {error}")


def _read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file.

    Raises:
        ValueError: It is no .npz, or damaged, or lacks an array, or holds pickled objects.
    """
    expected = {"metadata", *_ARRAYS}
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an .npz archive, or only part of one; save or copy it again")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if missing := sorted(expected - set(archive.files)):
                raise ValueError(f"it lacks {', '.join(missing)} and has {', '.join(sorted(archive.files)) or 'nothing'}")
            return {name: _unpickled(archive, name) for name in expected}
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ValueError(f"it is damaged ({error}); save or copy it again") from None


def _unpickled(archive: Any, name: str) -> np.ndarray:
    try:
        array = archive[name]
    except ValueError as error:
        if "Object arrays" in str(error):  # numpy's refusal
            raise ValueError(f"its array {name!r} holds pickled Python objects, which are never read") from None
        raise ValueError(f"its array {name!r} is damaged ({error}); save or copy it again") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"its entry {name!r} is not an array")
    return array


def _parse(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The arguments of ``Demonstrations`` from a file's arrays; ValueError where something is not as documented above."""
    try:
        header = json.loads(str(arrays.pop("metadata")))
        version, agents, sizes = header["format_version"], header["agents"], header["sizes"]
        agents, sizes = tuple(str(agent) for agent in agents), tuple(int(size) for size in sizes)
    except (json.JSONDecodeError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"its metadata are not JSON with format_version, agents and sizes ({error!r})") from None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"it is of format version {version}, but this version of dm2_wrappers reads {FORMAT_VERSION}; "
            f"upgrade dm2_wrappers or record it again"
        )
    for name, dtype in _ARRAYS.items():
        if dtype is not None and arrays[name].dtype != dtype:
            raise ValueError(f"its {name} must be {np.dtype(dtype)}, but they are {arrays[name].dtype}")
    metadata = {key: value for key, value in header.items() if key not in ("format_version", "agents", "sizes")}
    columns = {name: array for name, array in arrays.items() if name != "observations"}
    columns["padded_observations"] = arrays["observations"]
    return {"agents": agents, "sizes": sizes, "metadata": metadata, **columns}
