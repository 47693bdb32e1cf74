"""What ``Demonstrations`` accepts: its constructor's arguments are converted to one documented form, or refused.

Lists may stand for tuples and arrays, NumPy's numbers for Python's, and any numeric dtype for the documented one if no
value changes (floating-point numbers may be rounded). The file reader checks the shapes here too, before it reads an array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks

STYLES = ("concurrent", "shuffled", "mixed")

Shape = tuple[int, ...]


def normalized(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of ``Demonstrations`` in their documented types.

    Raises:
        ValueError: One is not what is documented, the arrays do not fit together, or a number is NaN or infinite.
    """
    agents, sizes = agent_names(arguments["agents"]), feature_sizes(arguments["sizes"])
    arrays = {
        "observations": _floats("observations", arguments["padded_observations"]),
        "alive": exactly("alive", arguments["alive"], np.bool_),
        "actions": _actions(arguments["actions"]),
        "rewards": _floats("rewards", arguments["rewards"]),
        "offsets": exactly("offsets", arguments["offsets"], np.int64),
        "won": exactly("won", arguments["won"], np.int8),
    }
    check_shapes(agents, sizes, {name: array.shape for name, array in arrays.items()})
    metadata = plain_metadata(arguments["metadata"])
    if "style" in metadata:
        _checks.choice("the style of demonstrations", metadata["style"], STYLES)
    if not isinstance(metadata.get("env_id"), str | None):
        raise ValueError(f"the env_id of demonstrations must be a string or None, got {metadata['env_id']!r}")
    _check_positions(metadata, len(agents))
    _check_offsets(arrays["offsets"], len(arrays["observations"]), metadata.get("style"))
    if not np.isin(arrays["won"], (-1, 0, 1)).all():
        raise ValueError(f"won must hold 1 (won), 0 (lost) or -1 (not reported), got {_other(arrays['won'], (-1, 0, 1))}")
    _clear_padding(arrays)
    _check_actions(arrays["actions"], arrays["alive"], agents)
    arrays["padded_observations"] = arrays.pop("observations")
    return {"agents": agents, "sizes": sizes, "metadata": metadata, **arrays}


def agent_names(agents: Any) -> tuple[str, ...]:
    """The agents' names as a tuple.

    Raises:
        ValueError: There are none, or they are not unique strings.
    """
    names = tuple(agents) if isinstance(agents, Iterable) and not isinstance(agents, str | bytes) else (agents,)
    if isinstance(agents, str) or not names or not all(isinstance(name, str) for name in names):
        shown = agents if isinstance(agents, str) else list(names)
        raise ValueError(f"agents must be one or more names, each a string, got {shown!r}; convert ids with str(id)")
    if len(set(names)) != len(names):
        raise ValueError(f"demonstrations need unique agents, but got {list(map(str, names))}")
    return tuple(str.__str__(name) for name in names)  # a plain string, not NumPy's or an enumeration's


def feature_sizes(sizes: Any) -> tuple[int, ...]:
    """Each agent's number of features as a tuple.

    Raises:
        ValueError: They are not integers of at least 1.
    """
    if isinstance(sizes, str | bytes | Mapping) or not isinstance(sizes, Iterable):
        raise ValueError(f"sizes must hold one integer of at least 1 for each agent, got {sizes!r}")
    return tuple(_checks.integer("each size", size, least=1) for size in sizes)


def check_shapes(agents: Sequence[str], sizes: Sequence[int], shapes: Mapping[str, Shape]) -> None:
    """Check that arrays of these shapes fit together.

    Args:
        agents: K names.
        sizes: Each agent's number of features.
        shapes: Of ``observations``, ``alive``, ``actions``, ``rewards``, ``offsets`` and ``won``.

    Raises:
        ValueError: They do not; it names the first array that does not fit.
    """
    if len(sizes) != len(agents):
        raise ValueError(f"demonstrations need agents with a size each, but got {list(agents)}, {list(sizes)}")
    if len(shapes["offsets"]) != 2 or shapes["offsets"][1] < 2:
        raise ValueError(f"offsets must be [agents, episodes + 1] of at least one episode, but are {shapes['offsets']}")
    if len(shapes["observations"]) != 3:
        raise ValueError(f"observations must have the shape [steps, agents, features], but it is {shapes['observations']}")
    steps, episodes = shapes["observations"][0], shapes["offsets"][1] - 1
    expected: dict[str, Shape] = {
        "observations": (steps, len(agents), max(sizes)),
        "alive": (steps, len(agents)),
        "actions": (steps, len(agents), *shapes["actions"][2:3]),
        "rewards": (steps, len(agents)),
        "offsets": (len(agents), episodes + 1),
        "won": (len(agents), episodes),
    }
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise ValueError(f"{name} of these demonstrations must have the shape {shape}, but it is {shapes[name]}")


def plain_metadata(metadata: Any) -> dict[str, Any]:
    """Metadata made of what JSON can hold: NumPy's numbers and arrays become Python's, tuples become lists.

    Raises:
        ValueError: They hold something that JSON cannot.
    """
    if not isinstance(metadata, Mapping):
        raise ValueError(f"the metadata of demonstrations must be a dict, got {type(metadata).__name__}")
    try:
        return dict(_plain(metadata, "metadata"))
    except RecursionError:
        raise ValueError("demonstrations keep metadata as JSON, but these are nested too deeply") from None


def plain_provenance(provenance: Any) -> dict[str, Any]:
    """Notes about a policy as a dict; none for None.

    Raises:
        ValueError: They are no dict.
    """
    if provenance is not None and not isinstance(provenance, Mapping):
        raise ValueError(f"provenance must be a dict of notes about the policy, got {provenance!r}")
    return dict(provenance or {})


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating) and math.isfinite(value):
        return float(value)
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), where)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str | int | np.integer) or isinstance(key, bool)]:
            raise ValueError(f"demonstrations keep metadata as JSON, whose keys are strings, but {where} has {odd[0]!r}")
        plain = {_text(key): _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
        if len(plain) < len(value):
            raise ValueError(
                f"demonstrations keep metadata as JSON, whose keys are strings, but {where} has a number and a string that "
                f"become the same key: its keys are {_checks.shown(list(value))}"
            )
        return plain
    shown = value if isinstance(value, float | np.floating) else f"a value of type {type(value).__name__}"
    raise ValueError(f"demonstrations keep metadata as JSON, which cannot hold {shown} at {where}")


def _text(key: Any) -> str:
    return str.__str__(key) if isinstance(key, str) else str(int(key))


def _numeric(name: str, value: Any) -> NDArray[Any]:
    """Any array or nested lists of numbers as an array."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:  # lists of unlike lengths, a tensor on a GPU
        raise ValueError(f"{name} of these demonstrations cannot become one array of numbers: {error}") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} of these demonstrations must hold numbers, but its dtype is {array.dtype}")
    return array


def _floats(name: str, value: Any) -> NDArray[np.float32]:
    array = _numeric(name, value)
    if array.dtype.kind in "biu":  # only floating-point numbers may be rounded
        return exactly(name, array, np.float32)
    if not _finite(array):
        raise ValueError(f"the {name} of these demonstrations hold NaN or infinite values")
    with np.errstate(over="ignore"):
        result = np.asarray(array, np.float32)
    if not _finite(result):
        raise ValueError(
            f"the {name} of these demonstrations hold numbers beyond float32 (3.4e38), such as {_largest(array)}"
        )
    return result


def exactly(name: str, value: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """Any array or nested lists in this dtype, if no value changes.

    Raises:
        ValueError: A value would change.
    """
    array = _numeric(name, value)
    with np.errstate(invalid="ignore"):
        result = np.asarray(array, dtype)
    if array.dtype != result.dtype and not np.array_equal(result, array):
        raise ValueError(
            f"{name} of these demonstrations must be {np.dtype(dtype)}, but {array.dtype} values such as "
            f"{array[result != array].flat[0]} do not fit"
        )
    return result


def _actions(value: Any) -> NDArray[Any]:
    """Discrete actions [S, K] as int64, continuous ones [S, K, A] as float32, whatever they came as."""
    array = _numeric("actions", value)
    return _floats("actions", array) if array.ndim == 3 else exactly("actions", array, np.int64)


def _check_actions(actions: NDArray[Any], alive: NDArray[np.bool_], agents: Sequence[str]) -> None:
    """Discrete actions are counted from 0; what stands for those of the dead is not looked at."""
    if actions.ndim == 2 and (wrong := (actions < 0) & alive).any():
        step, k = np.argwhere(wrong)[0]
        raise ValueError(
            f"discrete actions of demonstrations are counted from 0, but agent {agents[k]!r} took {actions[step, k]} in row "
            f"{step}; subtract the space's start"
        )


def _check_positions(metadata: Mapping[str, Any], agents: int) -> None:
    positions = metadata.get("positions", [])
    whole = isinstance(positions, list) and all(type(each) is int and each >= 0 for each in positions)
    if not whole or ("positions" in metadata and len(positions) != agents):
        raise ValueError(
            f"positions in the metadata must be each agent's place among the environment's agents, {agents} integers of at "
            f"least 0, got {_checks.shown(positions)}"
        )


def _clear_padding(arrays: dict[str, NDArray[Any]]) -> None:
    """Set the rows after each agent's last episode to 0, in a copy where they are not: nobody has to leave them out."""
    ends = arrays["offsets"][:, -1]
    padding = np.arange(len(arrays["alive"]))[:, None] >= ends  # [S, K]
    for name in ("observations", "alive", "actions", "rewards"):
        if arrays[name][padding].any():
            arrays[name] = arrays[name].copy()
            arrays[name][padding] = 0


def _check_offsets(offsets: NDArray[np.int64], steps: int, style: str | None) -> None:
    # Compared, not subtracted: the difference of two damaged offsets may overflow.
    if (offsets[:, 0] != 0).any() or (offsets[:, 1:] <= offsets[:, :-1]).any() or (offsets[:, -1] > steps).any():
        raise ValueError(f"each agent's offsets must rise from 0 to at most {steps} (the rows), but they do not")
    if style == "concurrent" and (offsets != offsets[0]).any():
        raise ValueError(
            "concurrent demonstrations have the same offsets for all agents, but these differ; "
            "if each agent has its own episodes, set style to 'shuffled' or 'mixed' in the metadata"
        )


def _finite(array: NDArray[Any]) -> bool:
    # The smallest and largest number are NaN if any number is, and need no second array.
    return array.size == 0 or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def _largest(array: NDArray[Any]) -> float:
    return float(max(array.max(), array.min(), key=abs))


def _other(array: NDArray[Any], allowed: Sequence[int]) -> int:
    return int(array[~np.isin(array, allowed)][0])
