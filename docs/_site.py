"""MkDocs hook: lets pages link to files outside docs/, so that the same links work in the repository and on the site.

The changelog, the contributing guide and the figures and tables of results/ become part of the site. A link to any other
file, such as an example, becomes its path as plain text.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import relpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def published() -> dict[str, str]:
    """Files outside docs/ that are part of the site: their path in the repository and on the site."""
    figures = [path for kind in ("*.png", "*.md") for path in sorted((ROOT / "results").glob(kind))]
    return PAGES | {f"results/{path.name}": f"figures/{path.name}" for path in figures}


def on_files(files: Files, *, config: Any) -> Files:
    """Add the published files."""
    for source, target in published().items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    return rewrite(markdown, Path(page.file.abs_src_path).relative_to(ROOT).as_posix(), page.file.src_uri)


def rewrite(markdown: str, source: str, page: str) -> str:
    """The markdown with its links as the site needs them.

    Args:
        markdown: The text of a page.
        source: The page's file, relative to the root of the repository.
        page: The page's file on the site.
    """
    pages = published()

    def replace(match: re.Match[str]) -> str:
        image, text, target, anchor = match["image"], match["text"], match["target"], match["anchor"] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (ROOT / source).parent.joinpath(target).resolve().relative_to(ROOT).as_posix()
        on_site = path.removeprefix("docs/") if path.startswith("docs/") else pages.get(path)
        if on_site is None:
            return text if "`" in text else f"{text} (`{path}`)"
        return f"{image}[{text}]({relpath(on_site, str(Path(page).parent.as_posix()))}{anchor})"

    # Links in code blocks are left alone.
    parts = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else LINK.sub(replace, part) for part in parts)
