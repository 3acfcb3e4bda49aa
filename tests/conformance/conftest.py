"""The place of recorded histories, which are used where they are and not copied: `pytest tests/conformance --vectors DIR`."""

from pathlib import Path

import pytest

ANSWERS = "expected.tsv"
VECTORS = pytest.StashKey[list[tuple[Path, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vectors", type=Path, default=None, help=f"the folder of recorded histories and their {ANSWERS}")


def pytest_configure(config: pytest.Config) -> None:
    """Without the folder there is nothing to test, which is no pass."""
    folder = config.getoption("--vectors", None)
    if folder is None:
        raise pytest.UsageError("tests/conformance has no histories to judge\n\nhint: say where they are: pytest tests/conformance --vectors DIR")
    if not (folder / ANSWERS).is_file():
        raise pytest.UsageError(f"--vectors {folder}: there is no {ANSWERS} in it\n\nhint: a line `file<TAB>verdict` for each history beside it")
    config.stash[VECTORS] = read_answers(folder)


def read_answers(folder: Path) -> list[tuple[Path, str]]:
    """Each history and its verdict."""
    rows = []
    for number, line in enumerate((folder / ANSWERS).read_text().splitlines(), 1):
        fields = line.split("\t")
        if len(fields) != 2:
            raise pytest.UsageError(f"{folder / ANSWERS}, line {number}: {line!r}\n\nhint: a line is `file<TAB>verdict`")
        rows.append((folder / fields[0], fields[1]))
    return rows


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a history, and one of all."""
    vectors = metafunc.config.stash[VECTORS]
    if "vectors" in metafunc.fixturenames:
        metafunc.parametrize("vectors", [vectors], ids=["all"])
    elif "vector" in metafunc.fixturenames:
        metafunc.parametrize("vector", vectors, ids=[path.stem for path, _ in vectors])
