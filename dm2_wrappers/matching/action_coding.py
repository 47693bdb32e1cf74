"""How a discriminator sees an action: one-hot for discrete actions, scaled to [-1, 1] for bounded continuous ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from dm2_wrappers.vector.spaces import as_array, form


class ActionCoding:
    """Turns K agents' actions into features.

    A discrete action is one-hot. Without its space, an agent has one feature for each action up to the largest that
    its experts took, and one more for all larger ones, which they never took. A continuous action is scaled so that
    [-1, 1] is its space, or without it the range of its experts' actions. A component without bounds, or in which the
    experts' actions do not differ, is not scaled.

    Args:
        agents: The agents' names, in the order of the agent axis.
        demonstrations: The experts', with actions; None for self-imitation alone.
        described: `described_spaces` of the agents' action spaces, or None.

    Attributes:
        discrete: Whether actions are integers.
        sizes: Each agent's number of features.

    Raises:
        ValueError: The demonstrations hold no actions, or actions that are not in the spaces; neither demonstrations nor
            spaces are given.
    """

    def __init__(self, agents: Sequence[str], demonstrations: Any, described: Mapping[str, Any] | None) -> None:
        self._agents = tuple(agents)
        if demonstrations is None:
            self.discrete, of_experts = _nothing_done(self._agents, described)
        else:
            check_actions_recorded(demonstrations)
            self.discrete = demonstrations.actions.ndim == 2
            of_experts = [_live_actions(demonstrations, k) for k in range(len(self._agents))]
        if self.discrete:
            self._bounded = described is not None
            counts = [int(a.max(initial=0)) + 1 for a in of_experts]
            if described is not None:
                counts = [_count(agent, described) for agent in self._agents]
            self._counts = np.array(counts)
            self.sizes = tuple(count if self._bounded else count + 1 for count in counts)
        else:
            width = of_experts[0].shape[1]
            self._low, self._scale = np.zeros((len(agents), width)), np.ones((len(agents), width))
            sizes = []
            for k, agent in enumerate(self._agents):
                low, high = _range(agent, of_experts[k], described)
                bounded = np.isfinite(low) & np.isfinite(high) & (high > low)
                own = np.flatnonzero(bounded)
                self._low[k, own] = (low[own] + high[own]) / 2
                self._scale[k, own] = (high[own] - low[own]) / 2
                sizes.append(len(low))
            self.sizes = tuple(sizes)
        for k, agent in enumerate(self._agents):
            self._check(agent, k, of_experts[k])

    def features(self, actions: ArrayLike, live: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Features [..., K, F], padded to the widest agent; 0 where ``live`` is not.

        Args:
            actions: Integers [..., K] or floats [..., K, A].
            live: bool [..., K]; other actions mean nothing and are not checked.

        Raises:
            ValueError: Another shape, a number that is not finite, or an action out of an agent's space.
        """
        array = self.checked(actions, live.shape)
        if not self.discrete:
            array = np.where(live[..., None], array, 0).astype(np.float64)
            for k in np.argwhere(~np.isfinite(array))[:, -2][:1]:
                raise ValueError(f"an action of agent {self._agents[k]!r} is not finite; correct what the policy returns")
            scaled = (array - self._low) / self._scale
            own = np.arange(array.shape[-1]) < np.array(self.sizes)[:, None]
            return np.where(live[..., None] & own, scaled, 0).astype(np.float32)
        array = np.where(live, array, 0)
        wrong = (array < 0) | (array >= self._counts if self._bounded else False)
        if np.any(wrong):
            place = tuple(np.argwhere(wrong)[0])
            raise ValueError(self._outside(self._agents[place[-1]], int(place[-1]), array[place]))
        one_hot = np.minimum(array, self._counts)[..., None] == np.arange(max(self.sizes))
        return (one_hot & live[..., None]).astype(np.float32)

    def checked(self, actions: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Actions as an array.

        Args:
            actions: Integers [..., K] or floats [..., K, A].
            shape: Of the agents, [..., K].

        Raises:
            ValueError: Another shape, or no numbers of this kind.
        """
        array = as_array(actions)
        expected = shape if self.discrete else (*shape, self._low.shape[1])
        if array.shape != expected or array.dtype.kind not in ("iu" if self.discrete else "biuf"):
            what = "integer actions" if self.discrete else "actions"
            raise ValueError(f"expected {what} of shape {expected}, got {form(actions)}")
        return array

    def nothing(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """An array of actions 0 for agents [..., K]."""
        return np.zeros(shape, np.int64) if self.discrete else np.zeros((*shape, self._low.shape[1]))

    def by_name(self, actions: Mapping[str, Any]) -> NDArray[Any]:
        """``{agent: action}`` of some agents as one joint action [K] or [K, A]; 0 for the others."""
        joint = self.nothing((len(self._agents),))
        for agent, action in actions.items():
            if agent not in self._agents:
                raise ValueError(f"expected actions of agents among {list(self._agents)}, got {agent!r}; leave it out")
            k = self._agents.index(agent)
            joint[k] = self.chunk(agent, [action])[0]
        return joint

    def chunk(self, agent: str, actions: Any) -> NDArray[Any]:
        """One agent's own actions [n] or [n, A_agent], padded to the widest agent.

        Raises:
            ValueError: Another shape.
        """
        k = self._agents.index(agent)
        array = np.asarray(actions)
        if self.discrete:
            if array.size != len(array) or array.dtype.kind not in "iu":
                raise ValueError(f"expected integer actions [n] of agent {agent!r}, got {array.dtype} {array.shape}")
            return array.reshape(len(array))
        array = array.reshape(len(array), -1)
        if array.shape[1] not in (self.sizes[k], self._low.shape[1]):
            raise ValueError(f"expected actions [n, {self.sizes[k]}] of agent {agent!r}, got shape {array.shape}")
        return np.pad(array, ((0, 0), (0, self._low.shape[1] - array.shape[1])))

    def _check(self, agent: str, k: int, actions: NDArray[Any]) -> None:
        if self.discrete and (wrong := (actions < 0) | (actions >= self._counts[k])).any():
            raise ValueError("in the demonstrations, " + self._outside(agent, k, actions[wrong][0]))

    def _outside(self, agent: str, k: int, action: Any) -> str:
        return f"agent {agent!r} took the action {action}, but its actions are 0 to {self._counts[k] - 1}"


def check_actions_recorded(demonstrations: Any) -> None:
    """Check that demonstrations hold the experts' actions.

    Raises:
        ValueError: They hold none.
    """
    if not getattr(demonstrations, "has_actions", False):
        raise ValueError(
            'inputs="state-action" needs the experts\' actions, but these demonstrations hold none (all are 0); record them '
            'with Demonstrations.record, give "actions" to Demonstrations.from_episodes, or use inputs="transition"'
        )


def described_spaces(action_spaces: Any, agents: Sequence[str]) -> dict[str, Any] | None:
    """Action spaces in types that JSON can store: n of a ``Discrete``, [low, high] of a ``Box``.

    Args:
        action_spaces: ``{agent: space}``, or what this function returned; None stays None.
        agents: The agents.

    Raises:
        ValueError: Not one space for each agent, all ``Discrete`` or all ``Box``.
    """
    if action_spaces is None:
        return None
    if not isinstance(action_spaces, Mapping) or set(action_spaces) != set(agents):
        raise ValueError(f"action_spaces must be a dict with one space for each of {list(agents)}, got {action_spaces!r}")
    found: dict[str, Any] = {}
    for agent in agents:
        space = action_spaces[agent]
        if isinstance(space, spaces.Discrete):
            found[agent] = int(space.n)
        elif isinstance(space, spaces.Box):
            found[agent] = [_finite_or_none(space.low), _finite_or_none(space.high)]
        elif isinstance(space, int) or (isinstance(space, list | tuple) and len(space) == 2):
            found[agent] = space
        else:
            raise ValueError(f"action_spaces must be Discrete or Box spaces, got {space!r} for agent {agent!r}")
    return found


def _finite_or_none(bounds: NDArray[Any]) -> list[float | None]:
    return [float(bound) if np.isfinite(bound) else None for bound in bounds.ravel()]


def _live_actions(demonstrations: Any, k: int) -> NDArray[Any]:
    end = demonstrations.offsets[k, -1]
    return np.asarray(demonstrations.actions[:end, k][demonstrations.alive[:end, k]])


def _nothing_done(agents: Sequence[str], described: Mapping[str, Any] | None) -> tuple[bool, list[NDArray[Any]]]:
    """Whether actions in these spaces are discrete, and no actions of each agent, padded to the widest."""
    if described is None:
        raise ValueError(
            'SelfImitation without experts does not know the actions that inputs="state-action" needs: pass action_spaces'
        )
    if all(isinstance(described[agent], int) for agent in agents):
        return True, [np.zeros(0, np.int64)] * len(agents)
    return False, [np.zeros((0, max(len(described[agent][0]) for agent in agents)))] * len(agents)


def _count(agent: str, described: Mapping[str, Any]) -> int:
    if not isinstance(described[agent], int):
        raise ValueError(f"the experts' actions are discrete, but the action space of agent {agent!r} is a Box")
    return int(described[agent])


def _range(
    agent: str, of_experts: NDArray[Any], described: Mapping[str, Any] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lowest and highest action of an agent, [A_agent] each; infinite where there is no bound."""
    if described is None:
        if not len(of_experts):
            return np.zeros(of_experts.shape[1]), np.zeros(of_experts.shape[1])
        return of_experts.min(0).astype(np.float64), of_experts.max(0).astype(np.float64)
    if isinstance(described[agent], int):
        raise ValueError(f"the experts' actions are continuous, but the action space of agent {agent!r} is Discrete")
    low, high = (np.array([np.inf if b is None else b for b in bounds], np.float64) for bounds in described[agent])
    if len(low) > of_experts.shape[1]:
        raise ValueError(
            f"the action space of agent {agent!r} has {len(low)} components, but its experts' actions have "
            f"{of_experts.shape[1]}"
        )
    return low, high
