"""Processes that speak another protocol than HTTP: extra ones that listen, and a peer."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.lab import Submission, read_lab
from runner.run import Run

FOLDER = Path(__file__).parent / "chain"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A front, two relays that listen, and a peer without HTTP are up."""
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    one = Run(read_lab(FOLDER), Submission("solution", FOLDER / "solution", "solution"), tmp_path, seed=1)
    try:
        one.start(with_load=False)
        yield one
    finally:
        one.stop()


def test_everybody_is_found_at_an_address(run: Run) -> None:
    answer = run.call("GET", "/ask").json()
    assert answer["heard"] == ["1 HELLO!", "2 HELLO!"]
    relays = ",".join(f"127.0.0.1:{replica.port}" for replica in run.app.extras)
    assert answer["told"] == {"ECHO_ADDRESS": f"127.0.0.1:{run.peer('echo').port}", "RELAY_POST_ADDRESSES": relays}, "and at no URL"


def test_a_peer_without_http_has_a_ledger_and_a_state(run: Run) -> None:
    echo = run.peer("echo")
    before = len(echo.calls())
    echo.set(end="?")
    assert run.call("GET", "/ask").json()["heard"] == ["1 HELLO?", "2 HELLO?"]
    first, second = echo.calls()[before:]
    assert (first["n"], first["method"], first["path"], first["status"], first["replica"]) == (before + 1, "line", "hello", "shouted", None)
    assert first["start_ns"] <= first["end_ns"] <= second["start_ns"]
