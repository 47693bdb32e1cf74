"""What a user gets by installing and importing the package, before anything is played."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import subprocess
import sys

import pytest

import dm2_wrappers as dm2
from dm2_wrappers._extras import require

HEAVY = ("jax", "jaxmarl", "stable_baselines3", "sb3_contrib", "matplotlib", "pygame", "tensorboard", "supersuit")


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_version_and_types():
    assert importlib.metadata.version("dm2-wrappers") == dm2.__version__
    assert importlib.resources.files("dm2_wrappers").joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", dm2.__all__)
def test_public_names(name):
    assert getattr(dm2, name) is not None
    assert name in dir(dm2)


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'Demonstration'"):
        dm2.Demonstration  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'smack'"):
        dm2.envs.smack  # noqa: B018


def test_imports_are_lazy():
    program = "import sys, dm2_wrappers as dm2, dm2_wrappers.envs; {}; print(*sorted({{*sys.modules}} & {{*{}}}))"
    assert run(program.format("pass", ("torch", "gymnasium", *HEAVY))).split() == []
    core = "dm2.DM2ParallelEnv, dm2.DM2VectorEnv, dm2.DistributionMatcher, dm2.Demonstrations, dm2.vectorize"
    assert run(program.format(core, HEAVY)).split() == []


def test_smax_is_imported_without_noise():
    program = (
        "import io, sys, contextlib\n"
        "from dm2_wrappers.envs import smax\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):\n"
        "    streams = sys.stdout, sys.stderr\n"
        "    smax.scenarios()\n"
        "    assert streams == (sys.stdout, sys.stderr)\n"
        "    assert out.getvalue() == ''\n"
    )
    assert run(program) == ""


def test_a_missing_extra_names_the_command():
    with pytest.raises(ImportError, match=r"package 'no_such_package'.*pip install 'dm2-wrappers\[smax\]'") as caught:
        require("no_such_package.module", "smax")
    assert caught.value.name == "no_such_package"


def test_what_is_missing_inside_an_installed_package_is_said_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_package'$"):
        require("half_installed", "smax")


def test_a_present_module_is_returned():
    assert require("json.decoder", "smax").JSONDecoder


def test_environments_are_found_by_name():
    import dm2_wrappers as dm2

    assert dm2.envs.parallel_env("smax:3m").env_id == dm2.envs.parallel_env("3m").env_id == "smax:3m"
    assert dm2.envs.vector_env("smax:3m", 2, seed=0).num_envs == 2
    with pytest.raises(ValueError, match="unknown backend 'chess'"):
        dm2.envs.parallel_env("chess:3m")
    with pytest.raises(ValueError, match="nearest are"):
        dm2.envs.parallel_env("smax:5m_v_6m")
