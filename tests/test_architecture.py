"""The packages' imports: no circles, and only downwards through the layers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dm2_wrappers"

# From the bottom to the top; a module may import from its own layer or a lower one. Layers of several packages hold
# packages that do not know each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("_extras", "_checks", "_files", "_interrupts", "_memory", "rng_state", "unwrap"),
    ("vector",),
    ("envs",),
    ("episodes",),
    ("demonstrations",),
    ("matching",),
    ("tabular",),
    ("compatibility",),
    ("evaluation",),
    ("lockstep", "wrapper"),
    ("testing",),
    ("sb3", "rllib", "torchrl"),
    ("doctor",),
)
# Programs, which import what they run, are above the package that they lie in.
PROGRAMS = {"dm2_wrappers.demonstrations.__main__"}


def modules(package: Path, root: str = "dm2_wrappers") -> dict[str, ast.Module]:
    """Every module of a package, parsed, by its name."""
    found = {}
    for path in package.rglob("*.py"):
        parts = [root, *path.relative_to(package).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), filename=str(path))
    return found


def imports(name: str, tree: ast.Module, known: set[str]) -> set[str]:
    """The package's modules that a module imports, at its top or inside functions, but not for type checking only."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import in line {node.lineno}"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                if submodule in known:
                    found.add(submodule)
                elif node.module in known:
                    found.add(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    # ``import a.b`` runs a's __init__ first, but a package that imports its own parts is no circle of ideas.
    return {other for other in found if other != name}


def graph(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    return {name: imports(name, tree, set(trees)) for name, tree in trees.items()}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of two or more modules that import each other, directly or over others (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def connect(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges[name]:
            if other not in index:
                connect(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == name:
                    break
            if len(group) > 1:
                found.append(sorted(group))

    for name in edges:
        if name not in index:
            connect(name)
    return found


def layer_of(name: str) -> int | None:
    """The layer of a module; None for the package's own __init__, which loads its names lazily."""
    if name == "dm2_wrappers":
        return None
    part = name.split(".")[1]
    found = [number for number, layer in enumerate(LAYERS) if part in layer]
    assert found, f"{name} has no layer: add {part!r} to LAYERS, and to the layers in docs/extending.md"
    return found[0]


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Imports of a higher layer, or of another package in the same one."""
    wrong = []
    for name, others in edges.items():
        here = layer_of(name)
        if here is None or name in PROGRAMS:
            continue
        for other in others:
            there = layer_of(other)
            own = name.split(".")[1] == other.split(".")[1]
            siblings = there == here and not own and here != 0
            if there is None or there > here or siblings:
                wrong.append(f"{name} imports {other}")
    return wrong


TREES = modules(PACKAGE)
EDGES = graph(TREES)


def test_no_module_imports_itself_over_others():
    assert circles(EDGES) == []


def test_imports_point_down_the_layers():
    assert upward(EDGES) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("dm2_wrappers.demonstrations.npz", "from dm2_wrappers.demonstrations.dataset import Demonstrations"),
        ("dm2_wrappers.vector.base", "def f():\n    from dm2_wrappers.vector import vectorize"),
        ("dm2_wrappers.sb3.checkpoint", "from dm2_wrappers.sb3.learners import IndependentLearners"),
    ],
)
def test_a_circle_that_is_put_back_is_found(name, line):
    trees = {**TREES, name: ast.Module([*TREES[name].body, *ast.parse(line).body], [])}
    assert any(name in group for group in circles(graph(trees)))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("dm2_wrappers.matching.matcher", "import dm2_wrappers.wrapper"),
        ("dm2_wrappers.lockstep.scheduler", "from dm2_wrappers import sb3"),
        ("dm2_wrappers.wrapper", "def f():\n    from dm2_wrappers.lockstep import Lockstep"),
        ("dm2_wrappers.vector.sync", "from dm2_wrappers import demonstrations"),
    ],
)
def test_an_import_that_points_up_is_found(name, line):
    trees = {**TREES, name: ast.Module([*TREES[name].body, *ast.parse(line).body], [])}
    assert any(name in wrong for wrong in upward(graph(trees)))


def test_type_checking_imports_do_not_count():
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dm2_wrappers.sb3 import learners\n"
    assert imports("dm2_wrappers.vector.base", ast.parse(source), set(TREES)) == set()
