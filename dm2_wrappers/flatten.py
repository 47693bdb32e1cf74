"""What a PettingZoo agent sees, as flat float32 arrays: observations, action masks and a name for the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


def observation_part(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The space of the features alone: PettingZoo's ``{"observation", "action_mask"}`` loses its mask."""
    if isinstance(space, spaces.Dict) and {"observation", "action_mask"} <= set(space.spaces):
        return space.spaces["observation"]
    return space


def flat_space(space: spaces.Space[Any]) -> spaces.Box:
    """The flat float32 ``Box`` that :func:`flatten` puts an agent's observations in, without its action mask.

    Args:
        space: The agent's observation space.

    Raises:
        ValueError: The space has no flat form of fixed length (Graph, Sequence).
    """
    features = observation_part(space)
    flat = spaces.flatten_space(features) if features.is_np_flattenable else features
    if not isinstance(flat, spaces.Box):
        raise ValueError(
            f"an observation space must flatten to a vector of fixed length (Box, Discrete, MultiDiscrete, "
            f"MultiBinary, Tuple or Dict of these), but this one is {space}; convert it in a wrapper first"
        )
    return spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32), dtype=np.float32)


def flatten(space: spaces.Space[Any], observation: Any) -> NDArray[np.float32]:
    """One observation of ``space`` as a float32 vector [D], without its action mask."""
    features = observation_part(space)
    if features is not space:
        observation = observation["observation"]
    if not isinstance(features, spaces.Box):
        observation = spaces.flatten(features, observation)
    return np.asarray(observation, dtype=np.float32).ravel()


def action_mask(observation: Any, info: Mapping[str, Any]) -> Any | None:
    """The agent's legal actions, from its observation or, failing that, its info; None where there are no masks."""
    if isinstance(observation, Mapping) and "action_mask" in observation:
        return observation["action_mask"]
    return info.get("action_mask")


def without_matcher(env: Any) -> Any:
    """The environment under a DM2 wrapper; another one as it is. Test episodes must not reach the matcher.

    Raises:
        ValueError: The DM2 wrapper is itself wrapped, so that it cannot be left out.
    """
    while "matcher" in getattr(env, "__dict__", {}):
        env = env.env
    if hasattr(env, "matcher"):
        raise ValueError(
            f"the discriminators would be trained on these episodes, because {type(env).__name__} wraps a DM2 wrapper: "
            "pass the environment without it, wrapped alike"
        )
    return env


def environment_id(env: Any) -> str:
    """A stable name: the environment's ``env_id``, else its ``metadata["name"]``, else its class."""
    inner = getattr(env, "unwrapped", env)
    name = getattr(env, "env_id", None) or getattr(inner, "env_id", None) or (inner.metadata or {}).get("name")
    return str(name or type(inner).__name__)
