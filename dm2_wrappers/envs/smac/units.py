"""The agents' names on SMAC's maps, known before StarCraft runs: ``marine_0``, ``stalker_1``, ``medivac_0``, ..."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# SMAC's kinds of map ("map_type"): the allies' unit types in the order of StarCraft's type numbers, by which SMAC sorts.
KINDS: dict[str, tuple[str, ...]] = {
    "marines": ("marine",),
    "stalkers": ("stalker",),
    "zealots": ("zealot",),
    "hydralisks": ("hydralisk",),
    "colossus": ("colossus",),
    "stalkers_and_zealots": ("stalker", "zealot"),
    "colossi_stalkers_zealots": ("colossus", "stalker", "zealot"),
    "MMM": ("marauder", "marine", "medivac"),
    "bane": ("baneling", "zergling"),
}

# Maps of several types: how many of each. SMAC's own table has only their sum.
COUNTS: dict[str, tuple[int, ...]] = {
    "2s3z": (2, 3),
    "3s5z": (3, 5),
    "3s5z_vs_3s6z": (3, 5),
    "1c3s5z": (1, 3, 5),
    "MMM": (2, 7, 1),
    "MMM2": (2, 7, 1),
    "bane_vs_bane": (4, 20),
}


def ally_types(map_name: str, map_type: str, n_agents: int) -> list[str]:
    """Each ally's unit type, in SMAC's order; "agent" on custom maps with several types."""
    kinds = KINDS.get(map_type, ("agent",))
    counts = (n_agents,) if len(kinds) == 1 else COUNTS.get(map_name, ())
    if len(counts) != len(kinds) or sum(counts) != n_agents:
        return ["agent"] * n_agents
    return [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]


def number(types: Iterable[str]) -> tuple[str, ...]:
    """A name for each unit: its type and its number among those of that type, in order."""
    seen: Counter[str] = Counter()
    names = []
    for kind in types:
        names.append(f"{kind}_{seen[kind]}")
        seen[kind] += 1
    return tuple(names)


def check_types(names: Sequence[str], map_type: str, units: Mapping[int, Any]) -> None:
    """Compare the names with the units of the running game.

    Raises:
        RuntimeError: They are of other types, so agents would get each other's names.
    """
    kinds = KINDS.get(map_type, ())
    if len(kinds) < 2 or names[0].startswith("agent_"):
        return
    first = min(unit.unit_type for unit in units.values())
    offsets = [units[k].unit_type - first for k in range(len(names))]
    real = number(kinds[offset] if offset < len(kinds) else "unknown" for offset in offsets)
    if real != tuple(names):
        raise RuntimeError(f"this map's units are {', '.join(real)}, but {', '.join(names)} were expected")
