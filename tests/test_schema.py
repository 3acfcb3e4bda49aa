"""The schema that editors complete lab.toml by."""

import tomllib
from pathlib import Path

import pytest

from runner.schema import lab_schema, render

ROOT = Path(__file__).parent.parent


def test_the_file_is_current() -> None:
    assert (ROOT / "runner" / "lab.schema.json").read_text() == render(), "run `python -m runner.schema > runner/lab.schema.json`"


@pytest.mark.parametrize("file", sorted(ROOT.glob("labs/*/*/lab.toml")), ids=lambda file: file.parent.name)
def test_it_knows_every_key_that_labs_use(file: Path) -> None:
    schema = lab_schema()
    table = tomllib.loads(file.read_text())
    assert set(table) <= set(schema["properties"])
    assert set(table["app"]) <= set(schema["$defs"]["AppTable"]["properties"])
    assert set(table["covers"]) <= set(schema["properties"]["covers"]["items"]["enum"])
    assert set(schema["required"]) <= set(table)
