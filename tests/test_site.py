"""The pages that `make docs` lays out; that they make a site, mkdocs says itself."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_builder", ROOT / "infra" / "site.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PLACES = {"README.md": "index.md", "docs/design.md": "docs/design.md", "labs/a/b/README.md": "labs/b.md"}


@pytest.mark.parametrize(
    ("text", "source", "linked"),
    [
        ("[b](labs/a/b/README.md)", "README.md", "[b](labs/b.md)"),
        ("[d](docs/design.md#words)", "README.md", "[d](docs/design.md#words)"),
        ("[start](../README.md)", "docs/design.md", "[start](../index.md)"),
        ("[there](https://example.org/x)", "README.md", "[there](https://example.org/x)"),
        ("[here](#more)", "README.md", "[here](#more)"),
        ("[the licence](LICENSE)", "README.md", "the licence"),
        ("![a picture](a.png)", "README.md", "![a picture](a.png)"),
    ],
)
def test_links_between_files_become_links_between_pages(site: ModuleType, text: str, source: str, linked: str) -> None:
    assert site.relink(text, source, PLACES) == linked


def test_hints_and_debrief_are_folded_away(site: ModuleType) -> None:
    text = site.fold_away(ROOT / "labs" / "middleware" / "cache-stampede")
    assert text.count("<details") == 4
    assert text.count("## ") == 1, "no heading of the debrief stands in the contents"
    assert site.fold_away(None) == ""
