"""What SMAC needs before it can play: the genuine package, StarCraft II, its maps. What is missing is one sentence.

``load``, ``check_map`` and ``check_starcraft`` raise for the first thing that is missing; ``findings`` lists everything
(for the doctor).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import platform
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from dm2_wrappers._extras import Finding

INSTALL = "pip install 'smac @ git+https://github.com/oxwhirl/smac'"
STARCRAFT = "https://github.com/Blizzard/s2client-proto#downloads"
MAPS = "https://github.com/oxwhirl/smac/releases/download/v0.1-beta1/SMAC_Maps.zip"

# Where pysc2 looks without SC2PATH, and the program in each Versions/Base<number> folder.
_FOLDERS = {"Darwin": "/Applications/StarCraft II", "Windows": "C:/Program Files (x86)/StarCraft II"}
_PROGRAMS = {"Darwin": "SC2.app/Contents/MacOS/SC2", "Windows": "SC2_x64.exe"}


def load() -> Any:
    """Genuine SMAC's class ``StarCraft2Env``.

    Raises:
        ImportError: SMAC cannot be imported; the message says what is missing and the command that installs it.
    """
    _check_package()
    _check_pysc2()
    return _import()


def check_map(map_name: str) -> None:
    """Check that genuine SMAC knows the map.

    Raises:
        ValueError: It does not; the message has the nearest names.
        ImportError: See `load`.
    """
    load()
    known = sorted(importlib.import_module("smac.env.starcraft2.maps.smac_maps").get_smac_map_registry())
    if map_name not in known:
        nearest = difflib.get_close_matches(str(map_name), known, n=3, cutoff=0.4) or known
        raise ValueError(f"there is no SMAC map {map_name!r}; the nearest are {', '.join(nearest)}")


def check_starcraft(map_name: str | None = None) -> None:
    """Check that StarCraft II and SMAC's maps are where pysc2 looks for them.

    Args:
        map_name: This map's file must be there; None: any of SMAC's.

    Raises:
        FileNotFoundError: Something is not; the message says where it was looked for and where to get it.
    """
    program()
    maps(map_name)


def program() -> Path:
    """StarCraft II's program of the newest version that is installed, which is the one that pysc2 starts.

    Raises:
        FileNotFoundError: There is none that can be started; the message says where it was looked for.
    """
    folder, name = starcraft_folder(), _PROGRAMS.get(platform.system(), "SC2_x64")
    where = f"SC2PATH is {os.environ['SC2PATH']!r}" if "SC2PATH" in os.environ else "SC2PATH is not set"
    mend = f"get it from {STARCRAFT} and set SC2PATH to its folder"
    bases = [base for base in folder.glob("Versions/Base*") if base.name[4:].isdecimal()]
    if not bases:
        raise FileNotFoundError(f"StarCraft II was not found, looked for {folder / 'Versions'} ({where}): {mend}")
    path = max(bases, key=lambda base: int(base.name[4:])) / name
    if not path.is_file():
        raise FileNotFoundError(f"StarCraft II's program was not found, looked for {path} ({where}): {mend}")
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"StarCraft II's program is not executable: run chmod +x '{path}'")
    return path


def maps(map_name: str | None = None) -> Path:
    """The folder of SMAC's maps in StarCraft II's.

    Raises:
        FileNotFoundError: It, or this map's file in it, is missing; the message says where to get it.
    """
    folder = starcraft_folder() / "Maps" / "SMAC_Maps"
    if not any(folder.glob("*.SC2Map")):
        raise FileNotFoundError(f"StarCraft II lacks SMAC's maps, looked for in {folder}: unzip {MAPS} in {folder.parent}")
    path = folder / f"{map_name}.SC2Map"
    if map_name is not None and not path.is_file():
        raise FileNotFoundError(f"StarCraft II lacks the map {map_name!r}, looked for {path}: {MAPS} has it")
    return folder


def starcraft_folder() -> Path:
    """The folder of StarCraft II: ``SC2PATH``, or where pysc2 looks without it. It may not exist."""
    return Path(os.environ.get("SC2PATH", _FOLDERS.get(platform.system(), "~/StarCraftII"))).expanduser()


def findings() -> Iterator[Finding]:
    """Everything that SMAC needs, installed or not, in the order of installation."""
    smac = _finding("smac", _check_package, lambda _: _version("smac"))
    pysc2 = _finding("pysc2", _check_pysc2, lambda _: _version("pysc2"))
    yield smac
    yield pysc2
    if smac.ok and pysc2.ok:  # only importing shows whether protobuf and the rest fit
        yield _finding("smac.env", _import, lambda _: f"imports, with protobuf {_version('protobuf')}")
    yield _finding("StarCraft II", program, str)
    yield _finding("SMAC's maps", maps, str)


def _finding(name: str, check: Callable[[], Any], describe: Callable[[Any], str]) -> Finding:
    try:
        return Finding(name, True, describe(check()))
    except (ImportError, FileNotFoundError) as error:
        return Finding(name, False, str(error))


def _check_package() -> None:
    if not _is_installed("smac"):
        raise ImportError(f"SMAC is not installed: run {INSTALL}", name="smac")
    spec = importlib.util.find_spec("smac")
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    if any((folder / "env" / "starcraft2").is_dir() for folder in folders):
        return
    if any((folder / "facade").is_dir() for folder in folders):
        raise ImportError(
            "the installed package 'smac' is another project of that name, the AutoML tool from PyPI: "
            f"run pip uninstall -y smac && {INSTALL}",
            name="smac.env",
        )
    raise ImportError(
        f"the package 'smac' that Python finds in {', '.join(map(str, folders)) or 'no folder'} has no smac.env, "
        f"so it is not SMAC: run {INSTALL}",
        name="smac.env",
    )


def _check_pysc2() -> None:
    if not _is_installed("pysc2"):
        raise ImportError("SMAC needs the package 'pysc2', which is not installed: run pip install pysc2", name="pysc2")


def _import() -> Any:
    try:
        return importlib.import_module("smac.env").StarCraft2Env
    except TypeError as error:  # protobuf refuses code that an older one generated
        if "Descriptors cannot" not in str(error):
            raise
        raise ImportError(
            f"protobuf {_version('protobuf')} is too new for StarCraft II's Python protocol: "
            "run pip install 'protobuf<3.21', or set PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python",
            name="google.protobuf",
        ) from error
    except ModuleNotFoundError as error:
        raise ImportError(
            f"SMAC needs the module {error.name!r}, which is not installed: run {INSTALL}", name=error.name
        ) from error


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a module without a spec, put into sys.modules by hand
        return True


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
