"""What a PettingZoo agent observes and does, as flat arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

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
    if features is not space:
        if not isinstance(observation, Mapping):
            raise ValueError(f"expected a dict with {MASK!r} and features, got {type(observation).__name__}")
        if isinstance(features, spaces.Dict):
            observation = {key: value for key, value in observation.items() if key != MASK}
        elif "observation" in observation:
            observation = observation["observation"]
        else:
            raise ValueError(f"expected the key 'observation', got {sorted(map(str, observation))}")
    if not isinstance(features, spaces.Box):
        try:
            return np.asarray(spaces.flatten(features, observation), dtype=np.float32).ravel()
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"expected an element of {features}, got {_shown(observation)} ({error})") from None
    try:
        vector = np.asarray(observation, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"expected numbers of shape {features.shape}, got {_shown(observation)}") from None
    if vector.shape != features.shape:
        raise ValueError(f"expected shape {features.shape}, got shape {vector.shape}")
    return vector.ravel()


def action_mask(observation: Any, info: Mapping[str, Any]) -> Any | None:
    """The agent's available actions, from its observation or else its info; None where there are no masks."""
    if isinstance(observation, Mapping) and MASK in observation:
        return observation[MASK]
    return info.get(MASK)


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
