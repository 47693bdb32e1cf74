"""``python -m dm2_wrappers.doctor``: what is installed, in which version, and the command that installs what is missing.

Lists the installed packages and, for each missing one, the command that installs it. The exit code is 1 if the core
cannot be used or, with --backend, if that environment cannot be used. The requirements come from the metadata of the
installed package.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from dm2_wrappers._extras import Finding, import_finding
from dm2_wrappers.envs import BACKENDS

PACKAGE = "dm2-wrappers"
OWN_ENVIRONMENT = ("smac", "tianshou", "agilerl")  # extras that want other versions than the rest


def core() -> Iterator[Finding]:
    """Python, this package and what it requires."""
    try:
        wanted = metadata.metadata(PACKAGE)["Requires-Python"]
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        yield Finding(PACKAGE, False, "found, but not installed: run pip install -e . in its folder")
        return
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        yield Finding("packaging", False, "not installed, and needed to compare versions: run pip install packaging")
        return
    python = platform.python_version()
    fits = python in SpecifierSet(wanted or "")
    yield Finding("Python", fits, python if fits else f"{python}, but {wanted} is required: make a new virtual environment")
    packages = list(_packages(""))
    yield from packages
    if all(finding.ok for finding in packages):
        yield import_finding(PACKAGE, version, "dm2_wrappers.wrapper")


def extra(name: str) -> Iterator[Finding]:
    """What one extra of this package installs and, if it is a backend's, whether the backend can be used."""
    packages = [] if name == "smac" else list(_packages(name))  # SMAC's own findings say more about its packages
    yield from packages
    if name in BACKENDS and all(finding.ok for finding in packages):
        yield from importlib.import_module(f"dm2_wrappers.envs.{name}.install").findings()


def extras() -> list[str]:
    """The extras of the installed package, except the one that combines them."""
    return [name for name in metadata.metadata(PACKAGE).get_all("Provides-Extra") or [] if name != "all"]


def _packages(name: str) -> Iterator[Finding]:
    """What the core ("") or an extra requires, from the installed package's metadata."""
    from packaging.requirements import Requirement

    for text in metadata.requires(PACKAGE) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        belongs = marker is None or marker.evaluate({"extra": name})
        if not belongs or (name and (marker is None or marker.evaluate({"extra": ""}))):
            continue
        mend = f"run pip install '{requirement.name}{requirement.specifier}'"
        if name in OWN_ENVIRONMENT:  # beside the other extras it would replace their packages
            mend = f"make a virtual environment of its own and run pip install 'dm2-wrappers[{name}]' there"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding(requirement.name, False, f"not installed: {mend}")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            yield Finding(requirement.name, True, version)
        else:
            yield Finding(requirement.name, False, f"{version}, but {requirement.specifier} is required: {mend}")


def table(sections: dict[str, list[Finding]]) -> str:
    """The findings as text, one paragraph per section: a tick and what was found, or a cross and what to do."""
    width = max(len(finding.name) for findings in sections.values() for finding in findings)
    lines = []
    for title, findings in sections.items():
        lines += ["", title]
        lines += [f"  {'✓' if f.ok else '✗'} {f.name:<{width}}  {f.detail}" for f in findings]
    return "\n".join(lines[1:])


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 if the core and the chosen backend can be used."""
    parser = argparse.ArgumentParser(prog="python -m dm2_wrappers.doctor", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--backend", choices=BACKENDS, help="check only the core and this environment")
    backend = parser.parse_args(arguments).backend
    sections = {"core": list(core())}
    if len(sections["core"]) > 1:  # the requirements could be read
        for name in extras() if backend is None else [backend]:
            sections[f"extra {name}"] = list(extra(name))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show ticks shows question marks
    print(table(sections))
    needed = [*sections["core"], *sections.get(f"extra {backend}", [])]
    missing = [finding.name for finding in needed if not finding.ok]
    what = "the core" if backend is None else f"the backend {backend}"
    print(f"\n{what} cannot be used: see {', '.join(missing)}" if missing else f"\n{what} can be used")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
