"""Which tests run each line, and how long each test takes: so that a change is shown to these tests only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

CONFIGURATION = """[run]
source = dm2_wrappers
concurrency = greenlet,thread
dynamic_context = test_function
data_file = {data}
"""


class Durations:
    """A pytest plugin that adds up the seconds of each test function, over its parameters."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report) -> None:
        self.seconds[report.nodeid.partition("[")[0]] += report.duration


def measure(tree: Path, tests: list[str], keyword: str) -> None:
    """Run the tests once under coverage, in a process of their own; write ``tests.json`` into the tree."""
    command = [sys.executable, "-m", "tests.mutate.coverage_of_tests", "-k", keyword, *tests]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    subprocess.run(command, cwd=tree, env=environment, check=True)


def read(tree: Path) -> tuple[dict[str, dict[str, list[str]]], dict[str, float]]:
    """What `measure` wrote: tests by file and line, and seconds by test."""
    facts = json.loads((tree / "tests.json").read_text())
    return facts["lines"], facts["seconds"]


def main(arguments: list[str]) -> None:
    import coverage
    import pytest

    tree, data = Path.cwd(), Path.cwd() / "coverage.data"
    (tree / "coverage.rc").write_text(CONFIGURATION.format(data=data))
    measured = coverage.Coverage(config_file=str(tree / "coverage.rc"))
    durations = Durations()
    measured.start()
    code = pytest.main(["-q", "-p", "no:cacheprovider", *arguments], plugins=[durations])
    measured.stop()
    measured.save()
    if code != 0:
        raise SystemExit("the tests must pass before anything is changed")
    lines = {}
    for file in measured.get_data().measured_files():
        contexts = measured.get_data().contexts_by_lineno(file)
        lines[str(Path(file).relative_to(tree))] = {
            str(line): sorted({node for context in names if (node := _node(context, tree))})
            for line, names in contexts.items()
        }
    (tree / "tests.json").write_text(json.dumps({"lines": lines, "seconds": durations.seconds}))


def _node(context: str, tree: Path) -> str | None:
    """``tests.vector.test_reader.test_x`` as pytest names it."""
    module, _, function = context.rpartition(".")
    path = module.replace(".", "/") + ".py"
    return f"{path}::{function}" if function.startswith("test_") and (tree / path).is_file() else None


if __name__ == "__main__":
    main(sys.argv[1:])
