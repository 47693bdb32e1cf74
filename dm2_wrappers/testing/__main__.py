"""``python -m dm2_wrappers.testing learner|env|table``: the checks on the command line."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.metadata
import importlib.util
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from dm2_wrappers.testing.env_check import check_dm2_env
from dm2_wrappers.testing.learner_check import LearnerReport, check_dm2_learner

# Packages that the table gives the version of, where a file imports them.
_LIBRARIES = ("ray", "torchrl", "stable_baselines3", "supersuit", "skrl", "tianshou", "agilerl", "benchmarl")
_HEADER = """\
| learner | version | steps heard | agents moved | order | verdict | seconds | command |
|---|---|---|---|---|---|---|---|"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if everything passed, 1 with a sentence if not."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except (AssertionError, ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dm2_wrappers.testing", description="Checks for your own code.")
    commands = parser.add_subparsers(required=True)

    learner = commands.add_parser("learner", help="check that a learner follows Algorithm 1")
    learner.add_argument("function", metavar="FILE_OR_MODULE[:FUNCTION]", help="the function; 'train' if none is named")
    _add_learner_options(learner)
    learner.add_argument("--exact", action="store_true", help="refuse rewards that are paid before the update")
    learner.set_defaults(command=_learner)

    env = commands.add_parser("env", help="check that an environment keeps the contract")
    env.add_argument("function", metavar="FILE_OR_MODULE:FUNCTION", help="a function or class that makes a ParallelEnv")
    env.add_argument("--seed", type=int, default=0, help="of resets and actions (0)")
    env.set_defaults(command=_env)

    table = commands.add_parser("table", help="check the function 'train' of each file that has one; print a table")
    table.add_argument("files", metavar="FILE", nargs="+", type=Path, help="for example examples/*.py")
    _add_learner_options(table)
    table.set_defaults(command=_table)
    return parser


def _add_learner_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="of experts, discriminators and learner (0)")
    parser.add_argument("--steps", type=int, default=9_600, help="joint steps of each of the first two runs (9600)")


def _learner(options: argparse.Namespace) -> int:
    train = load(options.function, "train")
    report = check_dm2_learner(train, seed=options.seed, steps=options.steps, exact=options.exact or None)
    print(
        f"passed: {report.heard:.0%} of the steps heard, agents moved {report.moved:.2f} or more towards their experts, "
        f"{_order(report)} order, {report.trainings} trainings, {report.steps} steps in {report.seconds:.0f} s"
    )
    return 0


def _env(options: argparse.Namespace) -> int:
    env = load(options.function)()
    try:
        check_dm2_env(env, seed=options.seed)
    finally:
        if hasattr(env, "close"):
            env.close()
    print("passed")
    return 0


def _table(options: argparse.Namespace) -> int:
    """One line for each file with ``train``; a line that cannot be measured says why."""
    failed = False
    print(_HEADER)
    for path in options.files:
        command = f"python -m dm2_wrappers.testing learner {shlex.quote(path.as_posix())}"
        heard, moved, order, verdict, seconds, version = "", "", "", "passes", "", ""
        try:
            tree = ast.parse(path.read_bytes(), str(path))
            if not _has_train(tree):
                continue
            version = _versions(tree)
            report = check_dm2_learner(load(f"{path.as_posix()}:train"), seed=options.seed, steps=options.steps)
            heard, moved, order = f"{report.heard:.0%}", f"{report.moved:.2f}", _order(report)
            seconds = f"{report.seconds:.0f}"
        except Exception as error:  # whatever one learner raises, the others are checked
            failed, verdict = True, " ".join(f"{'' if isinstance(error, AssertionError) else 'error: '}{error}".split())
        cells = (path.stem, version, heard, moved, order, verdict.replace("|", "\\|"), seconds, f"`{command}`")
        print(f"| {' | '.join(cells)} |", flush=True)
    return int(failed)


def _order(report: LearnerReport) -> str:
    return "exact" if report.exact else "online"


def _has_train(tree: ast.Module) -> bool:
    """Whether a file has a function ``train(make_env, ...)``."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train"]
    return any(function.args.args and function.args.args[0].arg == "make_env" for function in functions)


def _versions(tree: ast.Module) -> str:
    """The learner libraries that a file imports, with their versions; PyTorch's if it imports none."""
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.partition(".")[0] for name in imported}
    found = [library for library in _LIBRARIES if library in packages] or ["torch"]
    return ", ".join(f"{library.replace('_', '-')} {importlib.metadata.version(library)}" for library in found)


def load(place: str, default: str | None = None) -> Any:
    """A function by its place, ``path/to/file.py:function`` or ``module:function``.

    Raises:
        ValueError: There is no such file, module or function.
    """
    source, _, name = place.partition(":")
    if not (name or default):
        raise ValueError(f"expected FILE_OR_MODULE:FUNCTION, got {place!r}")
    return _attribute(_module(source), name or str(default))


def _attribute(module: ModuleType, name: str) -> Any:
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{module.__name__} has no function {name!r}")
    return function


def _module(source: str) -> ModuleType:
    """A module by its name or its file; a file's folder is searched for what it imports, as when it runs as a script."""
    if not source.endswith(".py"):
        sys.path.insert(0, "")  # the current folder, as for a script
        try:
            return importlib.import_module(source)
        except ModuleNotFoundError as error:
            if error.name not in (source, source.partition(".")[0]):
                raise  # the module is there, and what it imports is not
            raise ValueError(f"there is no module {source!r}; name a file with its ending, such as {source}.py") from None
    path = Path(source).resolve()
    if not path.is_file():
        raise ValueError(f"there is no file {source}")
    sys.path.insert(0, str(path.parent))
    # By its name, so that functions and classes in it can be pickled for worker processes.
    module = importlib.import_module(path.stem)
    if module.__file__ is None or Path(module.__file__).resolve() != path:
        raise ValueError(f"{source} has the name of another module, {module.__file__}: rename the file")
    return module


if __name__ == "__main__":
    sys.exit(main())
