"""Processes that speak another protocol than HTTP, in Docker."""

from pathlib import Path

from runner.backend import choose_backend
from runner.lab import Submission, read_lab
from runner.run import Run

FOLDER = Path(__file__).parent.parent / "chain"


def test_extra_processes_and_a_peer_are_found_at_their_addresses(images: None, untouched: None, tmp_path: Path) -> None:
    run = Run(read_lab(FOLDER), Submission("solution", FOLDER / "solution", "solution"), tmp_path, seed=1, backend=choose_backend("docker", ()))
    try:
        run.start(with_load=False)
        assert run.call("GET", "/ask").json()["heard"] == ["1 HELLO!", "2 HELLO!"]
        assert [call["path"] for call in run.peer("echo").calls()[-2:]] == ["hello", "hello"]
    finally:
        run.stop()
