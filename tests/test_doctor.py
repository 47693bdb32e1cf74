"""The doctor, on packages whose metadata lie in a temporary folder."""

from __future__ import annotations

import pytest

from dm2_wrappers import doctor
from dm2_wrappers._extras import Finding, import_finding
from dm2_wrappers.envs.smac import install as smac_install


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that puts distributions, {name: (version, metadata lines)}, where importlib.metadata finds them."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "PACKAGE", "dm2-doctored")

    def make(distributions: dict[str, tuple[str, list[str]]]) -> None:
        for name, (version, lines) in distributions.items():
            folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
            folder.mkdir()
            header = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines]
            (folder / "METADATA").write_text("\n".join(header) + "\n")

    return make


def doctored(*requirements: str, python: str = ">=3.11") -> dict:
    lines = [f"Requires-Python: {python}", *(f"Requires-Dist: {text}" for text in requirements)]
    lines += [f"Provides-Extra: {name}" for name in ("games", "smax", "smac", "tianshou", "all")]
    return {"dm2-doctored": ("1.2.3", lines)}


def test_all_is_well(installed, capsys):
    installed(
        {**doctored("dm2-thing>=1.0", 'dm2-game; extra == "games"'), "dm2-thing": ("1.1rc1", []), "dm2-game": ("7", [])}
    )
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    assert "  ✓ dm2-thing     1.1rc1\n" in printed
    assert "  ✓ dm2-doctored  1.2.3\n" in printed
    assert "extra games\n  ✓ dm2-game      7\n" in printed
    assert printed.endswith("the core can be used\n")


def test_a_core_that_lacks_something(installed, capsys):
    installed({**doctored("dm2-thing>=1.0", "dm2-other<3", "dm2-third"), "dm2-thing": ("0.9", [])})
    assert doctor.main([]) == 1
    printed = capsys.readouterr().out
    assert "✗ dm2-thing     0.9, but >=1.0 is required: run pip install 'dm2-thing>=1.0'" in printed
    assert "✗ dm2-other     not installed: run pip install 'dm2-other<3'" in printed
    assert printed.endswith("the core cannot be used: see dm2-thing, dm2-other, dm2-third\n")


def test_the_wrong_python(installed, capsys):
    installed(doctored(python=">=4"))
    assert doctor.main([]) == 1
    assert "but >=4 is required" in capsys.readouterr().out


def test_a_package_that_is_not_installed(installed, capsys):
    assert doctor.main(["--backend", "smax"]) == 1
    assert "✗ dm2-doctored  found, but not installed: run pip install -e . in its folder" in capsys.readouterr().out


def test_a_broken_import(installed, tmp_path, monkeypatch):
    (tmp_path / "dm2_broken.py").write_text("raise OSError('libsomething.so:\\n cannot open')")
    finding = import_finding("thing", "1", "dm2_broken")
    assert finding == Finding(
        "thing", False, "cannot be imported (OSError: libsomething.so: cannot open): reinstall the package it names"
    )


def test_an_extra_that_lacks_something_matters_only_where_it_was_asked_for(installed, capsys):
    installed(doctored('dm2-jax>=9; extra == "smax"', 'dm2-game; extra == "games"'))
    assert doctor.main([]) == 0
    assert "✗ dm2-jax" in capsys.readouterr().out
    assert doctor.main(["--backend", "smax"]) == 1
    printed = capsys.readouterr().out
    assert "dm2-game" not in printed
    assert printed.endswith("the backend smax cannot be used: see dm2-jax\n")


def test_an_extra_with_other_versions_goes_into_an_environment_of_its_own(installed, capsys):
    installed(doctored('dm2-tianshou>=2; extra == "tianshou"', 'dm2-game; extra == "games"'))
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    assert "a virtual environment of its own and run pip install 'dm2-wrappers[tianshou]' there" in printed
    assert "run pip install 'dm2-game'" in printed


def test_smac(installed, capsys, monkeypatch):
    installed(doctored('smac @ git+https://github.com/oxwhirl/smac ; extra == "smac"'))
    monkeypatch.setattr(
        smac_install, "findings", lambda: [Finding("smac", True, "1.0.0"), Finding("maps", False, "get some")]
    )
    assert doctor.main([]) == 0
    assert doctor.main(["--backend", "smac"]) == 1
    assert capsys.readouterr().out.endswith("✗ maps          get some\n\nthe backend smac cannot be used: see maps\n")
    monkeypatch.setattr(smac_install, "findings", lambda: [Finding("smac", True, "1.0.0")])
    assert doctor.main(["--backend", "smac"]) == 0


def test_the_real_thing(capsys):
    """Where the extra smax is installed."""
    pytest.importorskip("jaxmarl")
    assert doctor.main(["--backend", "smax"]) == 0
    printed = capsys.readouterr().out
    assert "✓ jaxmarl" in printed
    assert "✗" not in printed


def test_an_unknown_backend(capsys):
    with pytest.raises(SystemExit):
        doctor.main(["--backend", "chess"])
    assert "invalid choice: 'chess'" in capsys.readouterr().err
