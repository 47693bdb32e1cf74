"""What a user gets by installing and importing the package, before anything is played."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.resources
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dm2_wrappers as dm2
from dm2_wrappers._extras import require

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = importlib.metadata.packages_distributions()
HEAVY = ("jax", "jaxmarl", "stable_baselines3", "sb3_contrib", "matplotlib", "pygame", "tensorboard", "supersuit", "ray")


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_version_and_types():
    assert importlib.metadata.version("dm2-wrappers") == dm2.__version__, "reinstall: make install"
    assert "version" in PROJECT["dynamic"]  # the only place is dm2_wrappers/__init__.py
    assert importlib.resources.files("dm2_wrappers").joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", dm2.__all__)
def test_public_names(name):
    if name in ("rllib", "torchrl"):
        pytest.importorskip({"rllib": "ray.rllib"}.get(name, name))  # not in the extras of `make test-python`
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
    pytest.importorskip("jaxmarl")
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
    pytest.importorskip("jaxmarl")
    assert dm2.envs.parallel_env("smax:3m").env_id == dm2.envs.parallel_env("3m").env_id == "smax:3m"
    assert dm2.envs.vector_env("smax:3m", 2, seed=0).num_envs == 2
    with pytest.raises(ValueError, match="unknown backend 'chess'"):
        dm2.envs.parallel_env("chess:3m")
    with pytest.raises(ValueError, match="nearest are"):
        dm2.envs.parallel_env("smax:5m_v_6m")


def requirements(*extras):
    """The packages that pyproject.toml names: the dependencies, and those of some extras."""
    named = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in named}


def imported(nodes):
    """The top-level packages that statements import, also by ``require``, but for Python's own."""
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
            names = [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
        yield from {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("dm2_wrappers", ("smax", "sb3", "rllib", "smac", "torchrl", "minari", "theory")),
        ("examples", ("smax", "sb3", "supersuit", "rllib", "torchrl", "skrl", "tianshou", "agilerl", "examples")),
        ("experiments", ("smax", "sb3", "torchrl", "examples", "theory", "ray", "experiments")),
    ],
)
def test_every_import_is_declared(folder, extras):
    declared = set(requirements(*extras))
    own = {"dm2_wrappers", "experiments", *(path.stem for path in (ROOT / "examples").glob("*.py"))}
    for path in (ROOT / folder).rglob("*.py"):
        # SMAC itself is in requirements-smac.txt, BenchMARL in constraints-benchmarl.txt, and environments of other
        # packages are in requirements-environments.txt.
        elsewhere = {"smac", "benchmarl", "lbforaging", "magent2", "vmas"}
        for module in {*imported(ast.walk(ast.parse(path.read_text())))} - own - elsewhere:
            assert distributions_of(module) & declared, f"{path} imports {module}, which pyproject.toml does not name"


def test_the_core_needs_no_extra():
    """What is imported at the top of a module outside the folders of backends and learner libraries."""
    core = set(requirements())
    for path in (ROOT / "dm2_wrappers").rglob("*.py"):
        if {"sb3", "smax", "smac", "rllib", "torchrl"}.isdisjoint(path.relative_to(ROOT).parts):
            for module in {*imported(ast.parse(path.read_text()).body)} - {"dm2_wrappers"}:
                assert distributions_of(module) & core, f"{path} imports {module}"


@functools.cache
def distributions_of(module):
    """The packages that bring a module; of one that is not installed, its own name."""
    return {canonicalize_name(name) for name in DISTRIBUTIONS.get(module, [module])}


def test_an_index_would_take_the_metadata():
    """Package indexes refuse packages whose requirements name an address."""
    extras = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *(line for lines in extras.values() for line in lines)]:
        assert Requirement(line).url is None, line
    smac = [line for line in (ROOT / "requirements-smac.txt").read_text().splitlines() if not line.startswith("#")]
    from dm2_wrappers.envs.smac.install import INSTALL

    assert [f"pip install {line!r}" for line in smac] == [INSTALL]


def test_the_extra_all_is_complete():
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    # smac, tianshou and agilerl need separate environments, Ray is for clusters, dev and docs are for work on this library.
    assert Requirement(everything).extras == set(extras) - {"all", "smac", "tianshou", "agilerl", "ray", "dev", "docs"}


def test_lowest_versions_are_those_that_are_declared():
    lowest = dict(line.split("==") for line in (ROOT / "constraints-lowest.txt").read_text().splitlines() if line[0] != "#")
    lowest = {canonicalize_name(name): version for name, version in lowest.items()}
    declared = requirements("sb3", "theory", "dev", "examples")
    for name, version in lowest.items():
        (bound,) = declared[name].specifier
        assert bound.operator == ">="
        assert bound.version == ".".join(version.split(".")[: len(bound.version.split("."))]), name
    assert set(requirements("sb3", "theory")) - set(lowest) == {"torch"}


def test_constraints_meet_what_is_declared():
    extras = set(PROJECT["optional-dependencies"]) - {"smac", "ray", "tianshou", "agilerl"}
    check_pins("constraints.txt", extras)
    check_pins("constraints-tianshou.txt", {"sb3", "tianshou", "examples"})
    check_pins("constraints-agilerl.txt", {"agilerl", "examples"})


def check_pins(file, extras):
    pins = re.findall(r"^(\S+)==(\S+)$", (ROOT / file).read_text(), flags=re.MULTILINE)
    pinned = {canonicalize_name(name): version for name, version in pins}
    for name, requirement in requirements(*extras).items():
        if name != "dm2-wrappers":
            assert requirement.specifier.contains(pinned[name]), name
