"""The small changes that are made to the source: Cosmic Ray's operators, and the deletion of statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

# One change per place and kind. Cosmic Ray's others mostly raise an error at once, or change nothing.
OPERATORS = [
    "AddNot",
    "NumberReplacer",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ZeroIterationForLoop",
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceUnaryOperator_Delete_Invert",
    "ReplaceUnaryOperator_Delete_USub",
    *(
        f"ReplaceComparisonOperator_{change}"
        for change in ("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Is_IsNot", "IsNot_Is")
    ),
    *(
        f"ReplaceBinaryOperator_{change}"
        for change in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Mod_Mul", "FloorDiv_Mul", "BitAnd_BitOr", "BitOr_BitAnd")
    ),
]


class DeleteStatement(Operator):
    """Replaces an assignment or a call that stands alone with ``pass``."""

    def mutation_positions(self, node):
        if node.type == "simple_stmt" and node.children[0].type in ("expr_stmt", "atom_expr", "power"):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        first = node.children[0].get_first_leaf()
        node.children[0] = parso.python.tree.Keyword("pass", first.start_pos, prefix=first.prefix)
        return node

    @classmethod
    def examples(cls):
        return ()


@dataclass(frozen=True)
class Mutation:
    """One change to one file.

    Attributes:
        path: The file, relative to the root.
        operator: Its kind.
        occurrence: The number of the place among those of its kind.
        line: Where it begins.
    """

    path: str
    operator: str
    occurrence: int
    line: int

    def apply(self, source: str) -> str:
        """The changed source."""
        changed = mutate_code(source, _operator(self.operator), self.occurrence)
        assert changed is not None
        return changed


def mutations(root: Path, path: Path) -> Iterator[Mutation]:
    """All changes to a file but those in annotations, error messages, imports and module constants such as ``__all__``."""
    text = path.read_text()
    tree, excluded, source = get_ast_from_path(path), _excluded(text), text.splitlines()
    for name in ["DeleteStatement", *OPERATORS]:
        places = (at for node in ast_nodes(tree) for at in _operator(name).mutation_positions(node))
        for occurrence, (start, _) in enumerate(places):
            if source[start[0] - 1][start[1] :].startswith("*,"):  # not a product: keyword-only arguments follow
                continue
            if not any(first <= tuple(start) <= last for first, last in excluded):
                yield Mutation(str(path.relative_to(root)), name, occurrence, start[0])


def _operator(name: str) -> Operator:
    return DeleteStatement() if name == "DeleteStatement" else get_operator(f"core/{name}")()


def _excluded(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where changes would prove nothing: (first line and column, last line and column) of each place."""
    found: list[Any] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Raise() | ast.AnnAssign(value=None):
                found.append(node)
            case ast.AnnAssign() | ast.arg():
                found.append(node.annotation)
            case ast.FunctionDef():
                found.append(node.returns)
            case ast.If(test=ast.Name("TYPE_CHECKING")) | ast.Assign(targets=[ast.Name("__all__")]):
                found.append(node)
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in found if n is not None]
