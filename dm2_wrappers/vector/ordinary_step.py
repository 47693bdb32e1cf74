"""Reads the results of an ordinary step with a few operations on the arrays of all agents.

A step is ordinary if the agents that acted all act again, no flag is set, and all values have the usual types and are right.
Any other step is left to `ParallelReader`, which reads agent by agent and knows what is wrong. Both give the same outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dm2_wrappers.vector.layout import Layout
from dm2_wrappers.vector.outcome import NEWS, Outcome, Seen, episode_news
from dm2_wrappers.vector.spaces import MASK, feature_space

_FLAGS = frozenset({bool, np.bool_})
_NUMBERS = frozenset({float, int, np.float64, np.float32})
_INFOS = frozenset({dict, type(None)})
_KINDS = "biuf"
LARGEST_NUMBER = float(np.finfo(np.float32).max)  # rewards become float32
_LARGEST_INTEGER = 2.0**63  # NumPy has no type for larger ones
_NOTHING: dict[str, Any] = {}


class _UnusualError(Exception):
    """A value that needs the reader."""


class OrdinaryStep:
    """Reads steps of the same agents. Make it with `possible`.

    Args:
        layout: How agents and spaces map to arrays.
        agents: The agents that act, as the environment lists them.
        present: The same agents, bool [K].
    """

    def __init__(self, layout: Layout, agents: Sequence[str], present: NDArray[np.bool_]) -> None:
        self._listed, self._present = list(agents), present
        index = np.flatnonzero(present)
        self._agents = [layout.agents[k] for k in index]
        native = [layout.native_observation_spaces[agent] for agent in self._agents]
        features = [feature_space(space) for space in native]
        self._has_masks = any(own is not space for own, space in zip(features, native, strict=True))
        self._shapes: list[Any] = [space.shape for space in features]
        self._size, self._width = len(layout.agents), max(layout.sizes)
        # Where the agents' features go in the flat array [K * D]. Without padding: a slice.
        sizes = [layout.sizes[k] for k in index]
        places = [np.arange(k * self._width, k * self._width + size) for k, size in zip(index, sizes, strict=True)]
        self._places: Any = np.concatenate(places)
        if len(self._places) == self._size * self._width:
            self._places = None
        self._actions: NDArray[np.bool_] | None = None
        if layout.discrete:
            counts = np.array(layout.action_sizes)
            self._mask_shapes = [(layout.action_sizes[k],) for k in index]
            self._actions = (np.arange(max(counts)) < counts[:, None]) & present[:, None]
            self._no_masks = self._actions.copy()
            self._no_masks[~present, 0] = True

    @classmethod
    def possible(cls, layout: Layout, agents: Any, present: NDArray[np.bool_]) -> OrdinaryStep | None:
        """For these agents; None if their spaces, or how the environment lists them, need the reader."""
        if type(agents) is not list or not agents or len(agents) != present.sum():
            return None
        native = [layout.native_observation_spaces[layout.agents[k]] for k in np.flatnonzero(present)]
        if not all(isinstance(feature_space(space), spaces.Box) for space in native):
            return None
        if len({isinstance(space, spaces.Dict) for space in native}) > 1:
            return None
        return cls(layout, agents, present)

    def of(self, agents: Any, present: NDArray[np.bool_]) -> bool:
        """Whether it is for these agents."""
        return self.goes_on(agents) and bool((present == self._present).all())

    def goes_on(self, agents: Any) -> bool:
        """Whether an environment that lists these agents still has the same ones."""
        return bool(type(agents) is list and agents == self._listed)

    def read(self, observations: Any, rewards: Any, terminations: Any, truncations: Any, infos: Any) -> Outcome | None:
        """What the step led to; None if it was not an ordinary one."""
        infos = _NOTHING if infos is None else infos
        if set(map(type, (observations, rewards, terminations, truncations, infos))) != {dict}:
            return None
        if not len(observations) == len(rewards) == len(self._agents):
            return None
        try:
            if any(_flags(terminations.values())) or any(_flags(truncations.values())):
                return None
            return self._outcome(observations, rewards, infos)
        except (_UnusualError, LookupError, TypeError, ValueError, ArithmeticError):
            return None

    def _outcome(self, observations: dict[str, Any], rewards: dict[str, Any], infos: dict[str, Any]) -> Outcome:
        given = [infos.get(agent) for agent in self._agents]
        if not _INFOS.issuperset(map(type, given)):
            raise _UnusualError
        own = [_NOTHING if info is None else info for info in given]
        keys: set[Any] = set().union(*own)
        seen = self._seen([observations[agent] for agent in self._agents], own, keys)
        env_rewards = self._numbers([info["env_reward"] for info in own]) if "env_reward" in keys else None
        broken, won = (False, None)
        if len(infos) > len(own) or not keys.isdisjoint(NEWS):
            broken, won = episode_news(infos)
        return Outcome(
            seen=seen,
            final_observations=seen.observations,
            final_alive=seen.alive,
            rewards=self._numbers([rewards[agent] for agent in self._agents]),
            env_rewards=env_rewards,
            terminations=~self._present,
            truncations=np.zeros(self._size, dtype=bool),
            broken=broken,
            won=won,
        )

    def _seen(self, observations: list[Any], infos: list[dict[str, Any]], keys: set[Any]) -> Seen:
        """What the agents see now; ``keys`` are those of all infos."""
        masks = None
        if self._has_masks:
            if set(map(type, observations)) != {dict} or set(map(len, observations)) != {2}:
                raise _UnusualError
            masks = [each[MASK] for each in observations]
            observations = [each["observation"] for each in observations]
        elif MASK in keys:
            masks = [info[MASK] for info in infos]
        alive = self._present
        if "alive" in keys:
            alive = self._of_all(_flags([info.get("alive", True) for info in infos]), bool)
        rows = self._rows(observations)
        return Seen(rows, self._present, alive, None if self._actions is None else self._masks(masks, alive))

    def _rows(self, observations: list[Any]) -> NDArray[np.float32]:
        flat = _joined(observations, self._shapes).astype(np.float32, copy=False)
        if not np.isfinite(flat).all():
            raise _UnusualError
        if self._places is None:
            return flat.reshape(self._size, self._width)
        rows = np.zeros(self._size * self._width, np.float32)
        rows[self._places] = flat
        return rows.reshape(self._size, self._width)

    def _masks(self, given: list[Any] | None, alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if given is None:
            return self._no_masks
        flat = _joined(given, self._mask_shapes)
        available = flat.astype(bool)
        if flat.dtype.kind != "b" and not (flat == available).all():
            raise _UnusualError
        assert self._actions is not None
        if len(flat) == self._actions.size:  # no padding
            masks = available.reshape(self._actions.shape)
        else:
            masks = np.zeros_like(self._actions)
            masks[self._actions] = available
        nothing = ~masks.any(axis=1)
        if (nothing & alive).any():
            raise _UnusualError
        masks[nothing, 0] = True  # of absent agents, and of the dead to whom SMAC's own wrapper gives a mask of zeros
        return masks

    def _of_all(self, values: list[Any], dtype: Any) -> NDArray[Any]:
        """Values of the agents that acted as an array [K], 0 for the others."""
        if len(values) == self._size:
            return np.array(values, dtype)
        array = np.zeros(self._size, dtype)
        array[self._present] = values
        return array

    def _numbers(self, values: list[Any]) -> NDArray[np.float64]:
        """One finite number for each agent that acted, [K]."""
        if not _NUMBERS.issuperset(types := set(map(type, values))):
            raise _UnusualError
        numbers = self._of_all(values, np.float64)
        largest = np.abs(numbers).max()
        if not largest <= LARGEST_NUMBER or (int in types and largest >= _LARGEST_INTEGER):  # or NaN
            raise _UnusualError
        return numbers


def _flags(values: Any) -> Any:
    if not _FLAGS.issuperset(map(type, values)):
        raise _UnusualError
    return values


def _joined(arrays: list[Any], shapes: Sequence[Any]) -> NDArray[Any]:
    """Arrays of numbers of these shapes and one dtype, flat and one after the other."""
    if set(map(type, arrays)) != {np.ndarray} or [array.shape for array in arrays] != shapes:
        raise _UnusualError
    dtypes = [array.dtype for array in arrays]
    if dtypes[0].kind not in _KINDS or dtypes.count(dtypes[0]) != len(dtypes):
        raise _UnusualError
    return np.concatenate(arrays, axis=None)
