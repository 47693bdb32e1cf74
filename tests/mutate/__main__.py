"""Mutation tests: change the source in small ways with mutmut, and list the changes that no test notices.

``make mutate MODULE=dm2_wrappers/matching`` installs mutmut and runs this. By default the tests are those of the folder
that mirrors the module, without those that mutmut itself breaks: it adds a stack frame to every call, and forks.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("dm2_wrappers", "tests", "demos_data", "docs", "examples")
# mutmut leaves decorated functions alone. These decorators do not change what the tests of numbers see.
DECORATORS = ("@standard_modes",)


def configuration(module: str, tests: list[str], keyword: str) -> str:
    """mutmut's setup.cfg."""
    pattern = module if module.endswith(".py") else f"{module}/*"

    def lines(*values: str) -> str:
        return "".join(f"\n    {value}" for value in values)

    # A fork server, because a process that has used torch's autograd cannot be forked safely.
    return (
        "[mutmut]\n"
        f"source_paths ={lines('dm2_wrappers')}\n"
        f"only_mutate ={lines(pattern)}\n"
        f"pytest_add_cli_args ={lines('-p', 'no:cacheprovider', '-x', '-k', keyword)}\n"
        f"pytest_add_cli_args_test_selection ={lines(*tests)}\n"
        "process_isolation = forkserver\nuse_setproctitle = false\n"
        "use_git_change_detection = false\ntrack_dependencies = false\n"
    )


def prepare(folder: Path) -> None:
    """Copy the source and the tests, since mutmut works in the folder that it is started in."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder / "dm2_wrappers").rglob("*.py"):
        kept = [line for line in path.read_text().splitlines(keepends=True) if line.strip() not in DECORATORS]
        path.write_text("".join(kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", help="a folder or file, such as dm2_wrappers/matching")
    parser.add_argument("--tests", nargs="*", help="test files or folders; by default the folder that mirrors the module")
    parser.add_argument("--keyword", default="not one_warning and not forked", help="pytest's -k")
    parser.add_argument("--children", type=int, default=1, help="processes")
    args = parser.parse_args()

    module = args.module.rstrip("/")
    mirror = module.replace("dm2_wrappers", "tests", 1)
    tests = args.tests or [str(Path(mirror).parent) if module.endswith(".py") else mirror]
    folder = ROOT / ".cache" / "mutate"
    prepare(folder)
    (folder / "setup.cfg").write_text(configuration(module, tests, args.keyword))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    mutmut = [sys.executable, "-m", "mutmut"]
    subprocess.run([*mutmut, "run", "--max-children", str(args.children)], cwd=folder, env=environment, check=True)
    results = subprocess.run([*mutmut, "results"], cwd=folder, env=environment, check=True, capture_output=True, text=True)
    survivors = [line.split(":")[0].strip() for line in results.stdout.splitlines() if line.endswith("survived")]
    for survivor in survivors:
        subprocess.run([*mutmut, "show", survivor], cwd=folder, env=environment, check=True)
    print(f"{len(survivors)} changes survived")


if __name__ == "__main__":
    main()
