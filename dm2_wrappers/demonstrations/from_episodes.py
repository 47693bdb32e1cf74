"""Demonstrations from arrays of your own: a list of joint episodes, each with every agent's observations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.demonstrations.validation import agent_names, exactly, plain_metadata, plain_provenance

# The keys that an episode may have.
_KEYS = ("observations", "actions", "rewards", "alive", "won")

Arrays = dict[str, NDArray[Any]]  # one array for each agent


def from_episodes(
    episodes: Sequence[Mapping[str, Any]], *, env_id: str | None, provenance: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The arguments of ``Demonstrations``; see :meth:`Demonstrations.from_episodes`."""
    if isinstance(episodes, Mapping | str) or not isinstance(episodes, Sequence) or not len(episodes):
        raise ValueError(f"episodes must be a list of one or more episodes, got {_shown(episodes)}")
    joint = [_Episode(e, episode) for e, episode in enumerate(episodes)]
    agents = agent_names(joint[0].observations)
    for e, episode in enumerate(joint):
        if set(episode.observations) != set(agents):
            raise ValueError(
                f"every episode needs all agents: episode 0 has {list(agents)}, episode {e} {list(episode.observations)}; "
                "give an absent agent observations of 0 and alive all False"
            )
        for agent in agents:
            found, expected = episode.observations[agent].shape[1], joint[0].observations[agent].shape[1]
            if found != expected:
                raise ValueError(
                    f"agent {agent!r} has {expected} observation features in episode 0, but {found} in episode {e}"
                )
    sizes = [joint[0].observations[agent].shape[1] for agent in agents]
    offsets = np.cumsum([0, *(episode.length for episode in joint)])
    return {
        "agents": agents,
        "sizes": sizes,
        "padded_observations": _stacked([episode.observations for episode in joint], agents),
        "alive": _stacked([episode.alive for episode in joint], agents),
        "actions": _stacked([episode.actions for episode in joint], agents),
        "rewards": _stacked([episode.rewards for episode in joint], agents),
        "offsets": np.tile(offsets, (len(agents), 1)),
        "won": np.tile([episode.won for episode in joint], (len(agents), 1)),
        "metadata": plain_metadata(
            {
                "env_id": env_id,
                "style": "concurrent",
                "policy": plain_provenance(provenance),
                "has_actions": all(episode.has_actions for episode in joint),
            }
        ),
    }


class _Episode:
    """One joint episode of T steps, checked: each agent's observations [T, D], actions [T] or [T, A], and so on."""

    def __init__(self, e: int, episode: Any) -> None:
        if not isinstance(episode, Mapping) or not episode:
            raise ValueError(f"episode {e} must be a dict {{agent: observations [T, D]}}, got {_shown(episode)}")
        keyed = isinstance(episode.get("observations"), Mapping)
        parts: Mapping[str, Any] = episode if keyed else {"observations": episode}
        if unknown := [key for key in parts if key not in _KEYS]:
            raise ValueError(f"episode {e} has the unknown key {unknown[0]!r}; expected some of {', '.join(_KEYS)}")
        self._name = f"episode {e}"
        self.observations = {agent: self._matrix(agent, value) for agent, value in parts["observations"].items()}
        if not self.observations:
            raise ValueError(f"episode {e} has observations of no agent")
        self.length = len(next(iter(self.observations.values())))
        if not self.length:
            raise ValueError(f"episode {e} has no step")
        self.alive = self._each("alive", parts.get("alive"), True)
        self.has_actions = parts.get("actions") is not None
        self.actions = self._each("actions", parts.get("actions"), 0)
        self.rewards = self._each("rewards", parts.get("rewards"), 0.0)
        for agent, observations in self.observations.items():
            self._check_length("observations", agent, observations)
            self.observations[agent] = np.where(self.alive[agent][:, None], observations, 0)
        won = parts.get("won")
        if won is not None and (not isinstance(won, bool | int | np.integer | np.bool_) or won not in (-1, 0, 1)):
            raise ValueError(f"won of episode {e} must be True, False or None (not reported), got {won!r}")
        self.won = -1 if won is None else int(won)

    def _matrix(self, agent: Any, value: Any) -> NDArray[Any]:
        array = self._array("observations", agent, value)
        if array.ndim < 2:
            raise ValueError(
                f"{self._name} needs observations [T, D] of agent {agent!r}, a row a step, got the shape {array.shape}"
            )
        return array.reshape(len(array), math.prod(array.shape[1:]))

    def _each(self, name: str, value: Any, default: Any) -> Arrays:
        """One array for each agent, from {agent: array}, from one array for all of them, or from the default."""
        if value is None:
            return {agent: np.full(self.length, default) for agent in self.observations}
        values = value if isinstance(value, Mapping) else dict.fromkeys(self.observations, value)
        if set(values) != set(self.observations):
            raise ValueError(f"{self._name} has observations of {list(self.observations)}, but {name} of {list(values)}")
        arrays = {agent: self._array(name, agent, each) for agent, each in values.items()}
        for agent, array in arrays.items():
            if array.ndim != 1 and not (name == "actions" and array.ndim == 2):
                shapes = "[T] or [T, A]" if name == "actions" else "[T]"
                raise ValueError(f"{self._name} needs {name} {shapes} of agent {agent!r}, got the shape {array.shape}")
            self._check_length(name, agent, array)
        return {agent: exactly(name, array, np.bool_) if name == "alive" else array for agent, array in arrays.items()}

    def _array(self, name: str, agent: Any, value: Any) -> NDArray[Any]:
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"the {name} of agent {agent!r} in {self._name} are not an array: {error}") from None
        if array.dtype.kind not in "biuf":
            raise ValueError(f"the {name} of agent {agent!r} in {self._name} must be numbers, got {_shown(value)}")
        return array

    def _check_length(self, name: str, agent: Any, array: NDArray[Any]) -> None:
        if len(array) == self.length:
            return
        message = (
            f"{self._name} has {self.length} steps by its first agent's observations, but {len(array)} {name} of {agent!r}"
        )
        if len(array) == self.length - 1:
            message += "; leave out the observation after the last step (observations[:-1])"
        elif name == "observations":
            message += "; for an agent that died early add rows of 0 and give alive"
        raise ValueError(message)


def _stacked(episodes: list[Arrays], agents: Sequence[str]) -> NDArray[Any]:
    """[S, K] or [S, K, widest], padded with 0."""
    columns = []
    for agent in agents:
        parts = [episode[agent] for episode in episodes]
        if len(shapes := {part.shape[1:] for part in parts}) != 1:  # actions: sizes of observations were compared before
            found = " and ".join(sorted(f"[{', '.join(map(str, ('T', *shape)))}]" for shape in shapes))
            raise ValueError(f"the actions of agent {agent!r} must have one shape in all episodes, got {found}")
        columns.append(np.concatenate(parts))
    if len({column.ndim for column in columns}) != 1:
        raise ValueError("the agents' actions must be all discrete, [T], or all continuous, [T, A]")
    if columns[0].ndim == 1:
        return np.stack(columns, axis=1)
    widest = max(column.shape[1] for column in columns)
    return np.stack([np.pad(column, ((0, 0), (0, widest - column.shape[1]))) for column in columns], axis=1)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"
