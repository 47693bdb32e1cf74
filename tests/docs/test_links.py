"""Links and anchors lead somewhere, in the repository as well as on the site."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, pages

# An index shows the README alone: there its other links must be absolute. The picture has a text that stands for it.
PICTURE = "results/default.png"


def _prose(page: str) -> str:
    return re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def _targets(page: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", _prose(page))


def _anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).strip() for heading in headings]
    return {re.sub(r" ", "-", slug) for slug in slugs}


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page):
    for target in _targets(page):
        if target.startswith(("http", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        # The site makes these two pages from files in the root.
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file), target


def test_the_readme_works_on_a_package_index():
    relative = [target for target in _targets("README.md") if not target.startswith(("http", "#"))]
    assert relative == [PICTURE]
    picture = re.search(r"!\[([^]]*)\]\(results/default.png\)", (ROOT / "README.md").read_text())
    assert picture is not None
    assert len(picture[1]) > 40  # tells what the picture shows where it is not shown


def test_files_named_in_the_readme_exist():
    for name in re.findall(r"`((?:docs|examples|demos_data|results)/[\w./]*|[A-Z]+\.(?:md|cff))`", _prose("README.md")):
        assert (ROOT / name).exists(), name
