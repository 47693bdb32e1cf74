"""What SMAC lacks is said in one sentence. Packages and installs are laid out in temporary folders, as the real ones are."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

import dm2_wrappers as dm2
from dm2_wrappers.envs.smac import install as smac_install
from tests.helpers.smac_double import StarCraft2Env

REGISTRY = "def get_smac_map_registry():\n    return {'3m': {}, '5m_vs_6m': {}, '3s_vs_4z': {}, '3s_vs_5z': {}}\n"


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A function that makes packages, {path: source}, which Python then finds first; others' smac and pysc2 are hidden."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("smac", "pysc2")]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def make(sources: dict[str, str]) -> None:
        for path, source in sources.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(source)

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] in ("smac", "pysc2")]:
        del sys.modules[name]


GENUINE = {
    "smac/__init__.py": "",
    "smac/env/__init__.py": "class StarCraft2Env:\n    pass\n",
    "smac/env/starcraft2/__init__.py": "",
    "smac/env/starcraft2/maps/__init__.py": "",
    "smac/env/starcraft2/maps/smac_maps.py": REGISTRY,
    "pysc2/__init__.py": "",
}


@pytest.fixture
def starcraft(tmp_path, monkeypatch):
    """A folder as StarCraft II's on Linux, with one version and one map."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    folder = tmp_path / "StarCraftII"
    for version in ("Base69232", "Base75689", "BaseX"):
        program = folder / "Versions" / version / "SC2_x64"
        program.parent.mkdir(parents=True)
        program.write_text("")
        program.chmod(0o755)
    (folder / "Maps" / "SMAC_Maps").mkdir(parents=True)
    (folder / "Maps" / "SMAC_Maps" / "3m.SC2Map").write_text("")
    monkeypatch.setenv("SC2PATH", str(folder))
    return folder


def test_genuine_smac_is_loaded(packages):
    packages(GENUINE)
    assert smac_install.load().__name__ == "StarCraft2Env"


def test_no_smac(monkeypatch):
    monkeypatch.setitem(sys.modules, "smac", None)
    with pytest.raises(ImportError, match=r"SMAC is not installed: run pip install 'smac @ git\+https://github.com/oxwhirl"):
        smac_install.load()


def test_the_package_of_that_name_from_pypi(packages):
    packages({"smac/__init__.py": "", "smac/facade/__init__.py": "", "pysc2/__init__.py": ""})
    with pytest.raises(
        ImportError, match=r"another project .* AutoML .*: run pip uninstall -y smac && pip install 'smac @ git"
    ):
        smac_install.load()


def test_another_package_of_that_name(packages):
    packages({"smac/__init__.py": "", "smac/results.csv": ""})
    with pytest.raises(ImportError, match=r"'smac' that Python finds in .*packages/smac has no smac\.env"):
        smac_install.load()


def test_no_pysc2(packages, monkeypatch):
    packages(GENUINE)
    monkeypatch.setitem(sys.modules, "pysc2", None)
    with pytest.raises(ImportError, match="needs the package 'pysc2', which is not installed: run pip install pysc2"):
        smac_install.load()


def test_a_protobuf_that_is_too_new(packages):
    packages({**GENUINE, "smac/env/__init__.py": "raise TypeError('Descriptors cannot be created directly. ...')"})
    with pytest.raises(ImportError, match=r"protobuf .*is too new .*: run pip install 'protobuf<3\.21', or set "):
        smac_install.load()


def test_other_errors_inside_smac_are_said_as_they_are(packages):
    packages({**GENUINE, "smac/env/__init__.py": "raise TypeError('something else')"})
    with pytest.raises(TypeError, match="something else"):
        smac_install.load()


def test_a_module_that_smac_needs(packages):
    packages({**GENUINE, "smac/env/__init__.py": "import no_such_module"})
    with pytest.raises(ImportError, match="SMAC needs the module 'no_such_module', which is not installed"):
        smac_install.load()


def test_maps_by_name(packages):
    packages(GENUINE)
    smac_install.check_map("3m")
    with pytest.raises(ValueError, match=r"there is no SMAC map '3s_v_4z'; the nearest are 3s_vs_4z, 3s_vs_5z"):
        smac_install.check_map("3s_v_4z")


def test_a_complete_starcraft(starcraft):
    smac_install.check_starcraft()
    smac_install.check_starcraft("3m")
    assert smac_install.program() == starcraft / "Versions" / "Base75689" / "SC2_x64"  # the newest


def test_no_starcraft(starcraft, monkeypatch):
    monkeypatch.setenv("SC2PATH", str(starcraft / "nowhere"))
    with pytest.raises(
        FileNotFoundError, match=r"not found, looked for .*nowhere/Versions \(SC2PATH is '.*nowhere'\): get it"
    ):
        smac_install.check_starcraft()
    monkeypatch.delenv("SC2PATH")
    monkeypatch.setenv("HOME", str(starcraft))
    with pytest.raises(FileNotFoundError, match=r"looked for .*StarCraftII/Versions \(SC2PATH is not set\)"):
        smac_install.check_starcraft()


def test_a_program_that_is_not_there_or_may_not_run(starcraft):
    program = starcraft / "Versions" / "Base75689" / "SC2_x64"
    program.unlink()
    with pytest.raises(FileNotFoundError, match=r"program was not found, looked for .*Base75689/SC2_x64"):
        smac_install.check_starcraft()
    (starcraft / "Versions" / "Base69232" / "SC2_x64").chmod(0o644)
    program.parent.rmdir()
    with pytest.raises(FileNotFoundError, match=r"is not executable: run chmod \+x '.*Base69232/SC2_x64'"):
        smac_install.check_starcraft()


def test_no_maps(starcraft):
    with pytest.raises(FileNotFoundError, match=r"lacks the map '2s3z', looked for .*2s3z\.SC2Map: https"):
        smac_install.check_starcraft("2s3z")
    (starcraft / "Maps" / "SMAC_Maps" / "3m.SC2Map").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks SMAC's maps, .*SMAC_Maps: unzip https://.*SMAC_Maps\.zip in .*Maps$"
    ):
        smac_install.check_starcraft("3m")


def test_all_findings(packages, starcraft, monkeypatch):
    packages(GENUINE)
    found = {finding.name: finding for finding in smac_install.findings()}
    assert list(found) == ["smac", "pysc2", "smac.env", "StarCraft II", "SMAC's maps"]
    assert all(finding.ok for finding in found.values())
    assert found["SMAC's maps"].detail == str(starcraft / "Maps" / "SMAC_Maps")
    monkeypatch.setenv("SC2PATH", str(Path(starcraft, "nowhere")))
    assert [f.name for f in smac_install.findings() if not f.ok] == ["StarCraft II", "SMAC's maps"]
    monkeypatch.setitem(sys.modules, "pysc2", None)
    assert [f.name for f in smac_install.findings() if not f.ok] == ["pysc2", "StarCraft II", "SMAC's maps"]


def test_what_is_missing_is_looked_for_at_once(monkeypatch):
    asked = []
    monkeypatch.setattr(smac_install, "load", lambda: asked.append("load") or StarCraft2Env)
    monkeypatch.setattr(smac_install, "check_map", lambda name: asked.append(f"map {name}"))
    monkeypatch.setattr(smac_install, "check_starcraft", lambda name: asked.append(f"starcraft {name}"))
    assert dm2.envs.parallel_env("smac:3m").env_id == "smac:3m"
    assert asked == ["load", "map 3m", "starcraft 3m"]

    def lacking(name):
        raise FileNotFoundError("no StarCraft here")

    monkeypatch.setattr(smac_install, "check_starcraft", lacking)
    with pytest.raises(FileNotFoundError, match="no StarCraft here"):
        dm2.envs.vector_env("smac:3m", 2)
