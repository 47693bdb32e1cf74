"""Options that the backends share, checked once."""

from __future__ import annotations

from typing import Any

from dm2_wrappers import _checks

DEATHS = ("absorb", "remove")
INVALID_ACTIONS = ("error", "noop")
RENDER_MODES = (None, "rgb_array", "human")


def checked_death(value: Any) -> str:
    """What happens to a dead agent: "absorb" keeps it until the episode ends, "remove" terminates it at its death."""
    return _checks.choice("death", value, DEATHS)


def checked_invalid_action(value: Any) -> str:
    """What happens to an action that is not available: "error" refuses it, "noop" replaces it."""
    return _checks.choice("invalid_action", value, INVALID_ACTIONS)


def checked_render_mode(value: Any) -> str | None:
    """What ``render()`` returns or shows."""
    return _checks.choice("render_mode", value, RENDER_MODES)


def checked_max_steps(value: Any) -> int | None:
    """The time limit of an episode; None is the scenario's own."""
    return _checks.integer("max_steps", value, least=1, none=True)


def checked_num_envs(value: Any) -> int:
    """N, the number of sub-environments."""
    return _checks.integer("num_envs", value, least=1)
