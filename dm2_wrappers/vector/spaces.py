"""What a PettingZoo agent observes and does, as flat arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dm2_wrappers._checks import shown

MASK = "action_mask"


def feature_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The space of the features alone: a ``Dict`` loses its ``"action_mask"``, and every other key stays."""
    if not isinstance(space, spaces.Dict) or MASK not in space.spaces or len(space.spaces) == 1:
        return space
    features = {key: part for key, part in space.spaces.items() if key != MASK}
    return features["observation"] if set(features) == {"observation"} else spaces.Dict(features)


def flat_space(space: spaces.Space[Any]) -> spaces.Box:
    """The flat float32 ``Box`` that `flatten` puts an agent's observations in, without its action mask.

    Args:
        space: The agent's observation space.

    Raises:
        ValueError: The space has no flat form of fixed length (Graph, Sequence).
    """
    features = feature_space(space)
    flat = spaces.flatten_space(features) if features.is_np_flattenable else features
    if not isinstance(flat, spaces.Box):
        raise ValueError(
            f"an observation space must flatten to a vector of fixed length (Box, Discrete, MultiDiscrete, "
            f"MultiBinary, Tuple or Dict of these), but this one is {space}; convert it in a wrapper first"
        )
    with np.errstate(over="ignore"):  # bounds beyond float32 become infinite
        low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
    return spaces.Box(low, high, dtype=np.float32)


def flatten(space: spaces.Space[Any], observation: Any) -> NDArray[np.float32]:
    """One observation of ``space`` as a float32 vector [D], without its action mask.

    Raises:
        ValueError: The observation does not have the form of the space; the message says what came.
    """
    features = feature_space(space)
    if isinstance(observation, Mapping) and MASK in observation and not _is_feature(MASK, space):
        observation = {key: value for key, value in observation.items() if key != MASK}
    if isinstance(space, spaces.Dict) and set(space.spaces) == {"observation", MASK}:
        if not isinstance(observation, Mapping) or set(observation) != {"observation"}:
            keys = sorted(map(str, observation)) if isinstance(observation, Mapping) else type(observation).__name__
            raise ValueError(f"expected a dict with the keys 'observation' and {MASK!r}, got {keys}")
        observation = observation["observation"]
    _check(features, observation)
    if isinstance(features, spaces.Box):
        return np.asarray(observation, dtype=np.float32).ravel()
    return np.asarray(spaces.flatten(features, observation), dtype=np.float32).ravel()


def _is_feature(key: str, space: spaces.Space[Any]) -> bool:
    """Whether the ``Dict`` has nothing but this key, so that its values are features."""
    return feature_space(space) is space and isinstance(space, spaces.Dict) and key in space.spaces


def _check(space: spaces.Space[Any], value: Any) -> None:
    """Check what gymnasium's ``flatten`` takes for granted: keys, shapes and ranges, but not the bounds of a ``Box``.

    Raises:
        ValueError: The value is not an element of the space.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or set(value) != set(space.spaces):
            keys = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise ValueError(f"expected a dict with the keys {sorted(map(str, space.spaces))}, got {keys}")
        for key, part in space.spaces.items():
            _check(part, value[key])
        return
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            raise ValueError(f"expected a tuple of {len(space.spaces)} parts, got {shown(value)}")
        for part, own in zip(space.spaces, value, strict=True):
            _check(part, own)
        return
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        if not space.contains(value):
            raise ValueError(f"expected an element of {space}, got {shown(value)}")
        return
    array = as_array(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected numbers of shape {space.shape}, got {shown(value)}")
    if array.shape != space.shape:
        raise ValueError(f"expected shape {space.shape}, got shape {array.shape}")
    if isinstance(space, spaces.Box):
        return
    if isinstance(space, spaces.MultiBinary):
        inside = (array == 0) | (array == 1)
    else:
        count: Any = space.n if isinstance(space, spaces.Discrete) else space.nvec
        inside = (array >= space.start) & (array < space.start + count) & (array == np.floor(array))
    if not inside.all():
        raise ValueError(f"expected an element of {space}, got {shown(value)}")


def as_array(value: Any) -> NDArray[Any]:
    """Any value as an array; of objects where it is not made of numbers that NumPy can take."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # lists of unequal lengths; a tensor with gradients or on a GPU
        return np.array(None)


def form(value: Any) -> str:
    """The dtype and shape of an array, for an error message; what came, if it is no array of numbers."""
    array = as_array(value)
    return shown(value) if array.dtype.kind == "O" else f"{array.dtype} of shape {array.shape}"


def action_mask(observation: Any, info: Mapping[str, Any]) -> Any | None:
    """The agent's available actions, from its observation or else its info; None where there are no masks."""
    if isinstance(observation, Mapping) and MASK in observation:
        return observation[MASK]
    return info.get(MASK)


def checked_mask(mask: Any, size: int, agent: str, alive: bool, gave: str) -> NDArray[np.bool_]:
    """An agent's action mask as bool [size]. The dead, to whom SMAC's own wrapper gives zeros, may only do action 0.

    Args:
        mask: What came.
        size: How many actions the agent has.
        agent: Whose it is.
        alive: Whether the agent is alive, as far as is known.
        gave: Where it comes from, for the errors, such as "the environment 'rps' returned".

    Raises:
        ValueError: Another shape, other numbers than 0 and 1, or no available action of a live agent.
    """
    array = as_array(mask)
    if array.shape != (size,) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{gave} an action mask of agent {agent!r} with shape {array.shape} and dtype {array.dtype}, "
            f"but it has {size} actions: expected {size} flags"
        )
    if array.dtype.kind != "b" and not ((array == 0) | (array == 1)).all():
        raise ValueError(f"{gave} the action mask {array} of agent {agent!r}: expected zeros and ones")
    available = array.astype(bool)
    if not available.any():
        if alive:
            raise ValueError(
                f"{gave} an action mask of agent {agent!r} without any available action; allow at "
                'least one, such as a no-op, or report the agent as dead (infos[agent]["alive"] = False)'
            )
        available[0] = True
    return available
