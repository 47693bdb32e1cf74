"""Whether SMAX can be used."""

from __future__ import annotations

from collections.abc import Iterator

from dm2_wrappers._extras import Finding, import_finding


def findings() -> Iterator[Finding]:
    """Whether JaxMARL imports; its packages are listed by the extra."""
    yield import_finding("SMAX", "imports", "dm2_wrappers.envs.smax.maps", "names")
