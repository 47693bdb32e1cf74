"""SMAX scenarios by name: JaxMARL's own, and SMAC's maps that JaxMARL lacks but has the units for."""

from __future__ import annotations

import contextlib
import difflib
import io
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from dm2_wrappers._extras import require
from dm2_wrappers.envs.smax import compiled
from dm2_wrappers.envs.smax.modes import default_modes

if TYPE_CHECKING:
    from jaxmarl.environments.smax.smax_env import Scenario

MARINE, STALKER, ZEALOT, ZERGLING = 0, 2, 3, 4  # JaxMARL's unit type numbers

# SMAC's maps that are not in JaxMARL's table: (allies, enemies) as unit types.
SMAC_MAPS: dict[str, tuple[list[int], list[int]]] = {
    "2m_vs_1z": ([MARINE] * 2, [ZEALOT]),
    "3s_vs_3z": ([STALKER] * 3, [ZEALOT] * 3),
    "3s_vs_4z": ([STALKER] * 3, [ZEALOT] * 4),
    "8m_vs_9m": ([MARINE] * 8, [MARINE] * 9),
    "corridor": ([ZEALOT] * 6, [ZERGLING] * 24),
}


def jaxmarl(module: str) -> ModuleType:
    """JaxMARL's module of SMAX with that name, imported without its noise."""
    # When first imported, JaxMARL prints two lines about other environments to ``sys.__stdout__``, and
    # leaves ``sys.stdout`` and ``sys.stderr`` set to the original streams, whatever they were.
    compiled.keep()
    original, quiet = sys.__stdout__, io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(sys.stderr), default_modes():
        try:
            sys.__stdout__ = quiet  # type: ignore[misc, assignment]
            return require(f"jaxmarl.environments.smax.{module}", "smax")
        finally:
            sys.__stdout__ = original  # type: ignore[misc]


def names() -> list[str]:
    """Every scenario that ``get`` knows, sorted."""
    return sorted({*jaxmarl("smax_env").MAP_NAME_TO_SCENARIO, *SMAC_MAPS})


@default_modes()
def get(name: str) -> Scenario:
    """The JaxMARL scenario of that name.

    Raises:
        ValueError: No such scenario; the message has the nearest names.
    """
    smax_env = jaxmarl("smax_env")
    if name in SMAC_MAPS:
        import jax.numpy as jnp

        allies, enemies = SMAC_MAPS[name]
        unit_types = jnp.array(allies + enemies, dtype=jnp.uint8)
        return smax_env.Scenario(unit_types, len(allies), len(enemies), False, False)
    if name not in smax_env.MAP_NAME_TO_SCENARIO:
        known = names()
        nearest = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4) or known
        raise ValueError(f"there is no SMAX scenario {name!r}; the nearest are {', '.join(nearest)}")
    return smax_env.MAP_NAME_TO_SCENARIO[name]
