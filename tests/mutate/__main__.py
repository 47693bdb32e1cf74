"""Mutation tests: change the source in small ways, and list the changes that no test notices.

``make mutate MODULE=dm2_wrappers/matching`` installs what this needs and runs it. First the tests run once under coverage.
Each change is then made in a copy of the repository and shown to the tests that run its line, the fastest first. Test
processes are forked from one that has imported the heavy libraries. A change is noticed if a test fails or takes too long.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.mutate import coverage_of_tests
from tests.mutate.mutations import Mutation, mutations

ROOT = Path(__file__).parents[2]
COPIED = ("dm2_wrappers", "tests", "docs", "examples", "experiments", "README.md", "pyproject.toml")
HEAVY = ("torch", "gymnasium", "pettingzoo", "stable_baselines3", "sb3_contrib", "pytest", "scipy.stats")
# The tests that can notice a change to a folder, besides those of the folder that mirrors it.
ALSO = {
    "dm2_wrappers/matching": ["tests/wrapper"],
    "dm2_wrappers/vector": ["tests/wrapper", "tests/demonstrations/test_recording.py", "tests/test_evaluation.py"],
    "dm2_wrappers/lockstep": [
        f"tests/sb3/test_{name}.py" for name in ("vec_env", "buffers", "learners", "modes", "training", "callbacks")
    ],
    "dm2_wrappers/wrapper": ["tests/vector/test_presence.py", "tests/matching"],
    "dm2_wrappers/demonstrations": ["tests/test_episodes.py"],
}


@dataclass
class Trial:
    """A change, the copy of the repository that has it, and the process that tests it (none: no test runs its line)."""

    change: Mutation
    tree: Path
    tests: list[str]
    pid: int | None
    until: float

    def result(self) -> bool | None:
        """Whether the change survives; None while its tests run."""
        if self.pid is None:
            return True
        done, status = os.waitpid(self.pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        if time.monotonic() < self.until:
            return None
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return False


def copy_of_the_tree(folder: Path) -> Path:
    """Copy what the tests need."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    (folder / "demos_data").symlink_to(ROOT / "demos_data")
    return folder


def start(tree: Path, tests: list[str]) -> int:
    """Run these tests in a forked process and the folder ``tree``; its process ID. Its exit code is pytest's."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        os.chdir(tree)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.environ["PYTHONPATH"] = str(tree)
        sys.path[:] = [str(tree), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "dm2_wrappers")]:
            del sys.modules[name]
        import pytest

        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))
    finally:
        os._exit(code)


def tests_of(lines: dict[str, list[str]], number: int) -> list[str]:
    """The tests that run a line; for one that runs only when it is imported, those that run any line of its file."""
    if str(number) not in lines:
        return []
    return lines[str(number)] or sorted({test for tests in lines.values() for test in tests})


def chosen(tests: list[str], seconds: dict[str, float], most: float) -> list[str]:
    """The fastest of these tests that fit into so many seconds together."""
    found, total = [], 0.0
    for test in sorted(tests, key=lambda test: seconds.get(test, 0.0)):
        total += seconds.get(test, 0.0)
        if total <= most:
            found.append(test)
    return found


def difference(change: Mutation, source: str) -> str:
    """The change as a unified diff."""
    before, after = source.splitlines(), change.apply(source).splitlines()
    return "\n".join(difflib.unified_diff(before, after, change.path, "changed", lineterm="", n=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", help="a folder or file, such as dm2_wrappers/matching")
    parser.add_argument("--tests", nargs="*", help="test files or folders; by default those that mirror the module")
    parser.add_argument("--keyword", default="not forked and not one_warning", help="pytest's -k")
    parser.add_argument("--sample", type=int, help="try so many changes, drawn at random, instead of all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, default=60, help="most seconds of tests for each change")
    parser.add_argument("--children", type=int, default=1, help="processes")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True

    module = args.module.rstrip("/")
    mirror = module.replace("dm2_wrappers", "tests", 1)
    tests = args.tests or [*([mirror] if (ROOT / mirror).is_dir() else []), *ALSO.get(module, [])]
    cache = ROOT / ".cache" / "mutate"
    trees = [copy_of_the_tree(cache / f"{Path(module).stem}{number}") for number in range(args.children)]
    coverage_of_tests.measure(trees[0], tests, args.keyword)
    lines, seconds = coverage_of_tests.read(trees[0])

    files = sorted((ROOT / module).rglob("*.py")) if (ROOT / module).is_dir() else [ROOT / module]
    changes = [change for file in files for change in mutations(ROOT, file)]
    if args.sample:
        changes = random.Random(args.seed).sample(changes, min(args.sample, len(changes)))
    for name in HEAVY:
        __import__(name)
    tried: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    waiting, running = list(reversed(changes)), []
    with (cache / f"{Path(module).stem}.txt").open("w") as log:
        while waiting or running:
            while waiting and trees:
                change, tree = waiting.pop(), trees.pop()
                (tree / change.path).write_text(change.apply((ROOT / change.path).read_text()))
                covering = chosen(tests_of(lines.get(change.path, {}), change.line), seconds, args.seconds)
                limit = 30 + 8 * sum(seconds.get(test, 0.0) for test in covering)
                pid = start(tree, covering) if covering else None
                running.append(Trial(change, tree, covering, pid, time.monotonic() + limit))
            for trial in list(running):
                if (survives := trial.result()) is None:
                    continue
                running.remove(trial)
                path, source = trial.change.path, (ROOT / trial.change.path).read_text()
                tried[path] += 1
                noticed[path] += not survives
                if survives:
                    text = f"{trial.change.operator}, {len(trial.tests)} tests\n{difference(trial.change, source)}"
                    print(text, flush=True)
                    print(text, file=log, flush=True)
                (trial.tree / path).write_text(source)
                trees.append(trial.tree)
            time.sleep(0.05)
    for path in sorted(tried):
        print(f"{path}: {noticed[path]} of {tried[path]} changes noticed")
    print(json.dumps({"module": module, "tried": tried.total(), "noticed": noticed.total()}))


if __name__ == "__main__":
    main()
