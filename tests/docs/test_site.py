"""The hook that brings files outside docs/ into the site, and the list of pages."""

from __future__ import annotations

import importlib.util
import re

from tests.docs.pages import ROOT

PATH = ROOT / "docs/_site.py"


def _hook():
    import pytest

    pytest.importorskip("mkdocs", reason="needs the extra docs")
    spec = importlib.util.spec_from_file_location("_site", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_to_pages_and_figures_are_rewritten_from_where_the_page_is():
    rewrite = _hook().rewrite
    assert rewrite("[a](guide.md#x)", "docs/index.md", "index.md") == "[a](guide.md#x)"
    assert rewrite("![f](../results/fig2.png)", "docs/results.md", "results.md") == "![f](figures/fig2.png)"
    assert rewrite("[g](../guide.md)", "docs/tutorials/own_loop.md", "tutorials/own_loop.md") == "[g](../guide.md)"
    assert rewrite("[d](../docs/results.md#a-b)", "results/README.md", "figures/README.md") == "[d](../results.md#a-b)"
    assert rewrite("[c](docs/guide.md)", "CHANGELOG.md", "changelog.md") == "[c](guide.md)"


def test_links_to_other_files_become_their_path():
    rewrite = _hook().rewrite
    assert rewrite("[`examples/demo.py`](../examples/demo.py)", "docs/index.md", "index.md") == "`examples/demo.py`"
    assert rewrite("[the tests](../tests/docs)", "docs/index.md", "index.md") == "the tests (`tests/docs`)"


def test_links_elsewhere_and_in_code_are_left_alone():
    rewrite = _hook().rewrite
    for text in ("[a](https://example.org/x)", "[a](#here)", "```python\nx[a](../examples/demo.py)\n```"):
        assert rewrite(text, "docs/index.md", "index.md") == text


def test_every_page_is_in_the_navigation():
    navigation = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert navigation == written | {"changelog.md", "contributing.md"}


def test_the_site_needs_no_network():
    settings = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in settings
    assert not {"emoji", "social", "privacy", "http"} & set(re.findall(r"\w+", re.sub(r"#.*", "", settings)))
