"""The pages of the documentation and their code blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(
    r"(?:<!-- test: (?P<changes>[^>]*(?:->[^>]*)*?) -->\n)?^(?P<fence>```)(?P<language>\w*)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        language: What follows the fence; "" for commands and diagrams.
        code: Its text.
        line: Its first line in the page.
        changes: What the test changes, declared in a comment right above the block: ``<!-- test: long -> short -->``.
    """

    language: str
    code: str
    line: int
    changes: tuple[tuple[str, str], ...]

    def shortened(self) -> str:
        """The code with the declared changes."""
        code = self.code
        for long, short in self.changes:
            assert code.count(long) == 1, f"{long!r} is not in the block of line {self.line} exactly once"
            code = code.replace(long, short)
        return code


def pages() -> list[str]:
    """Every page that users read, relative to the root of the repository."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "demos_data/README.md", ROOT / "results/README.md"]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def blocks(page: str) -> list[Block]:
    """A page's code blocks from top to bottom."""
    text = (ROOT / page).read_text()
    found = []
    for match in BLOCK.finditer(text):
        changes = tuple(
            (long.strip(), short.strip())
            for long, short in (change.split("->") for change in (match["changes"] or "").split(";") if change)
        )
        line = text[: match.start("code")].count("\n") + 1
        found.append(Block(match["language"], match["code"], line, changes))
    return found
