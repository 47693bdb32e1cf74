"""How a check reports a fault. Not by ``assert``, which ``python -O`` leaves out."""

from __future__ import annotations

from collections.abc import Iterable


def require(condition: object, fault: str) -> None:
    """Raise an `AssertionError` with this sentence unless the condition holds."""
    if not condition:
        raise AssertionError(fault)


def names(agents: Iterable[str]) -> str:
    """'a', 'b' and 'c', for a sentence."""
    *first, last = ["", *map(repr, agents)]
    return " and ".join(filter(None, [", ".join(filter(None, first)), last]))
