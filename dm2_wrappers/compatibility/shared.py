"""Features that two agents both observe, for SMAX, SMAC, MPE and fully observed games.

A function of this kind takes one agent's observations and returns the features that a partner observes at the same step,
in a form that does not depend on which of the two observes them: the unit with the lower number comes first, and positions
are differences "higher minus lower". If the two agents were recorded together, their features are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.demonstrations import Demonstrations

Shared = Callable[[NDArray[np.float32], int, int], NDArray[Any]]
"""``shared(observations [n, D], agent, partner) -> [n, F]``, a row NaN where the two agents share nothing.

Agents are given by their place among the environment's agents (``Demonstrations.positions``).
"""

# SMAX (JaxMARL 0.2): a unit in an observation is health, relative x, y, last movement x, y, last target, cooldown and six
# type bits; an agent itself, at the end, is health, x, y, cooldown and six type bits. Enemies come after allies.
_SMAX_UNIT, _SMAX_SELF, _SMAX_TYPES = 13, 10, 6
_SMAX_SIGHT = np.array([9.0, 10.0, 10.0, 9.0, 8.0, 9.0])  # by unit type

_SMAC_SIGHT = 9.0
# SMAC's maps: allies, enemies, whether allies and enemies are Protoss (then they have shields), number of type bits.
_SMAC_MAPS: dict[str, tuple[int, int, bool, bool, int]] = {
    "3m": (3, 3, False, False, 0),
    "8m": (8, 8, False, False, 0),
    "25m": (25, 25, False, False, 0),
    "5m_vs_6m": (5, 6, False, False, 0),
    "8m_vs_9m": (8, 9, False, False, 0),
    "10m_vs_11m": (10, 11, False, False, 0),
    "27m_vs_30m": (27, 30, False, False, 0),
    "MMM": (10, 10, False, False, 3),
    "MMM2": (10, 12, False, False, 3),
    "2s3z": (5, 5, True, True, 2),
    "3s5z": (8, 8, True, True, 2),
    "3s5z_vs_3s6z": (8, 9, True, True, 2),
    "3s_vs_3z": (3, 3, True, True, 0),
    "3s_vs_4z": (3, 4, True, True, 0),
    "3s_vs_5z": (3, 5, True, True, 0),
    "1c3s5z": (9, 9, True, True, 3),
    "2m_vs_1z": (2, 1, False, True, 0),
    "corridor": (6, 24, True, False, 0),
    "6h_vs_8z": (6, 8, False, True, 0),
    "2s_vs_1sc": (2, 1, True, False, 0),
    "so_many_baneling": (7, 32, True, False, 0),
    "bane_vs_bane": (24, 24, False, False, 2),
    "2c_vs_64zg": (2, 64, True, False, 0),
}


def everything(observations: NDArray[np.float32], agent: int, partner: int) -> NDArray[np.float32]:
    """The whole observation, for games in which all agents observe the same, such as a `TabularParallelEnv`."""
    return observations


def smax(observations: NDArray[np.float32], agent: int, partner: int) -> NDArray[np.float64]:
    """SMAX: health and weapon cooldown of both units and their relative position, if each sees the other.

    Args:
        observations: [n, D] of a unit list observation, JaxMARL's default.
        agent: Who sees them.
        partner: The other unit of its team.

    Returns:
        [n, 6]: health and cooldown of the unit with the lower number, those of the other, and x and y of the second minus
        the first's, in units of the map. NaN if one is dead or out of sight.

    Raises:
        ValueError: The observations are not SMAX's.
    """
    width = observations.shape[1]
    if width <= _SMAX_SELF or (width - _SMAX_SELF) % _SMAX_UNIT:
        raise ValueError(
            f"SMAX's observations have 10 features and 13 more for each other unit, but these have {width}; "
            "use the function for your environment"
        )
    seen = observations.astype(np.float64)
    first = _SMAX_UNIT * _slot(agent, partner)
    other, own = seen[:, first : first + _SMAX_UNIT], seen[:, -_SMAX_SELF:]
    own_sight = _SMAX_SIGHT[own[:, -_SMAX_TYPES:].argmax(axis=1)]
    other_sight = _SMAX_SIGHT[other[:, -_SMAX_TYPES:].argmax(axis=1)]
    offset = other[:, 1:3] * own_sight[:, None]
    visible = (other[:, 0] > 0) & (own[:, 0] > 0)
    # The one with the longer sight must not count what the other cannot see.
    visible &= (own_sight <= other_sight) | (np.linalg.norm(offset, axis=1) < other_sight)
    return _ordered(own[:, [0, 3]], other[:, [0, 6]], offset, visible, swap=agent > partner)


def smac(scenario: str) -> Shared:
    """SMAC: health and shields of both units and their relative position, if each sees the other.

    Args:
        scenario: A map of SMAC's, such as "5m_vs_6m", recorded with SMAC's default observation options. What
            ``envs.smac`` appends (last action, agent number) is allowed.

    Returns:
        A function ``shared(observations [n, D], agent, partner)`` to [n, 4], or [n, 6] if the allies have shields: health
        (and shield) of the unit with the lower number, those of the other, and x and y of the second less the first's, in
        units of the map.

    Raises:
        ValueError: Unknown map; the function: observations that are too short for the map.
    """
    if scenario not in _SMAC_MAPS:
        raise ValueError(f"there is no SMAC map {scenario!r}; known are {', '.join(_SMAC_MAPS)}")
    agents, enemies, shields, enemy_shields, types = _SMAC_MAPS[scenario]
    unit = 5 + shields + types  # visible, distance, x, y, health, shield, type
    allies_begin = 4 + enemies * (5 + enemy_shields + types)  # after the four moves and the enemies
    self_begins = allies_begin + (agents - 1) * unit
    state = 1 + shields

    def shared(observations: NDArray[np.float32], agent: int, partner: int) -> NDArray[np.float64]:
        if observations.shape[1] < self_begins + state + types:
            raise ValueError(
                f"observations of {scenario} have at least {self_begins + state + types} features, but these have "
                f"{observations.shape[1]}; record with SMAC's default options"
            )
        seen = observations.astype(np.float64)
        first = allies_begin + unit * _slot(agent, partner)
        other, own = seen[:, first : first + unit], seen[:, self_begins : self_begins + state]
        visible = (other[:, 0] > 0) & (own[:, 0] > 0)
        return _ordered(own, other[:, 4 : 4 + state], other[:, 2:4] * _SMAC_SIGHT, visible, swap=agent > partner)

    return shared


def simple_spread(observations: NDArray[np.float32], agent: int, partner: int) -> NDArray[np.float64]:
    """MPE's simple_spread with full observability: the positions of all agents and landmarks.

    Args:
        observations: [n, 6 N]: own velocity and position, N landmarks and N - 1 agents relative to it, what they say.
        agent: Who sees them.
        partner: Not used: everyone sees all positions.

    Returns:
        [n, 4 N]: x and y of all agents, then of all landmarks.

    Raises:
        ValueError: The number of features is not 6 N.
    """
    width = observations.shape[1]
    if width % 6:
        raise ValueError(
            f"simple_spread's observations have 6 features for each agent, but these have {width}; "
            "record it with full observability and as many landmarks as agents"
        )
    seen, number = observations.astype(np.float64), width // 6
    own = seen[:, 2:4]
    relative = seen[:, 4 : 4 + 2 * number + 2 * (number - 1)].reshape(len(seen), -1, 2)
    absolute = relative + own[:, None]
    landmarks, others = absolute[:, :number], absolute[:, number:]
    agents = np.insert(others, agent, own, axis=1)
    return np.concatenate([agents, landmarks], axis=1).reshape(len(seen), -1)


def check_demonstrations(demos: object) -> None:
    """Check that these are demonstrations.

    Raises:
        TypeError: They are something else, such as the name of a file.
    """
    if not isinstance(demos, Demonstrations):
        raise TypeError(
            f"demos must be Demonstrations, got {_checks.shown(demos)}; read a file with Demonstrations.load(path)"
        )


def shared_features(demos: Demonstrations) -> Shared:
    """Return the function for the environment of the demonstrations.

    Raises:
        TypeError: ``demos`` are no demonstrations.
        ValueError: There is no function for their environment.
    """
    check_demonstrations(demos)
    name = demos.env_id or ""
    backend, _, scenario = name.partition(":")
    if backend == "smax":
        return smax
    if backend == "smac":
        return smac(scenario)
    if name.startswith("simple_spread"):
        return simple_spread
    if name.startswith("tabular"):
        return everything
    raise ValueError(
        f"there is no function for the shared features of the environment {demos.env_id!r}, only for SMAX, SMAC, "
        "simple_spread and tabular games; write a function shared(observations, agent, partner) and pass it as shared="
    )


def _slot(agent: int, partner: int) -> int:
    """The partner's position in an agent's list of the other agents."""
    return partner if partner < agent else partner - 1


def _ordered(
    own: NDArray[Any], other: NDArray[Any], offset: NDArray[Any], visible: NDArray[np.bool_], *, swap: bool
) -> NDArray[np.float64]:
    """The lower number's features, the higher number's, and the way from the first to the second; NaN if not visible."""
    columns = [other, own, -offset] if swap else [own, other, offset]
    return np.where(visible[:, None], np.concatenate(columns, axis=1), np.nan)
