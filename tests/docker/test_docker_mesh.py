"""Replicas that know each other, in Docker: their links lead through the gate, and their folders outlive a container's stop."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.backend import choose_backend
from runner.lab import Submission, read_lab
from runner.run import Run

FOLDER = Path(__file__).parent.parent / "mesh"


@pytest.fixture
def run(images: None, untouched: None, tmp_path: Path) -> Iterator[Run]:
    """Three replicas are up."""
    one = Run(read_lab(FOLDER), Submission("solution", FOLDER / "solution", "solution"), tmp_path, seed=1, backend=choose_backend("docker", ()))
    try:
        one.start(with_load=False)
        yield one
    finally:
        one.stop()


def test_pairs_are_cut_and_files_stay(run: Run) -> None:
    def heard(n: int) -> Any:
        return run.call("GET", "/ask", replica=n).json()["heard"]

    assert [heard(n) for n in (1, 2, 3)] == [[2, 3], [1, 3], [1, 2]]
    cut = run.mesh.cut(1, 2, one_way=True)
    assert [heard(n) for n in (1, 2)] == [["TimeoutError", 3], [1, 3]]
    cut.heal()
    refused = run.mesh.isolate(3, refuse=True)
    assert heard(3)[0] != 1
    refused.heal()
    for n in (1, 2, 3):
        run.call("PUT", "/word", f"word of {n}", replica=n)
    for name in run.replicas:
        run.kill(name)
    for name in run.replicas:
        run.restart(name)
    assert [heard(n) for n in (1, 2, 3)] == [[2, 3], [1, 3], [1, 2]]
    for n in (1, 2, 3):
        assert run.call("GET", "/word", replica=n).json() == {"word": f'"word of {n}"', "seen": ["/srv/data/word"]}
