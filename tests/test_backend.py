"""Which backend is taken, and what is said of it. None of this needs an engine."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.backend import choose_backend, require_images
from runner.errors import LabError, MachineError
from runner.owner import is_orphan, owner_of

if TYPE_CHECKING:
    from conftest import Kit


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine is named whose socket nobody serves."""
    path = tmp_path / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def test_embedded_is_embedded(no_engine: Path) -> None:
    assert str(choose_backend("embedded", ["redis"])) == "embedded"


def test_a_backend_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_BACKEND", "dokcer")  # a default, which argparse does not look at
    with pytest.raises(LabError, match="no backend is called 'dokcer'") as caught:
        choose_backend("dokcer", [])
    assert "there are auto, docker, embedded; LABS_BACKEND is dokcer" in caught.value.hint


def test_auto_falls_back_and_says_why(no_engine: Path) -> None:
    choice = choose_backend("auto", ["redis"])
    assert choice.name == "embedded"
    assert "no Docker engine answers at" in str(choice)


def test_auto_does_not_wait_for_an_engine_that_hangs(no_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.backend.ASKED_WITHIN_S", 0.2)
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(no_engine))
        engine.listen()
        assert "not within 0.2 s" in str(choose_backend("auto", ["redis"]))


def test_docker_that_is_asked_for_and_cannot_be_had(no_engine: Path) -> None:
    with pytest.raises(MachineError, match="no Docker engine answers at") as caught:
        choose_backend("docker", ["redis"])
    assert "BACKEND=embedded needs no Docker" in caught.value.hint


def test_missing_images_are_not_made_unasked() -> None:
    require_images([])
    with pytest.raises(MachineError, match="no image for redis, runtime yet: `make images` prepares them"):
        require_images(["redis", "runtime"])


def test_a_run_without_the_engine_it_asks_for_is_an_error(kit: "Kit", no_engine: Path) -> None:
    done = kit.labs("run", "hits", "--submission=solution", "--backend=docker", DOCKER_HOST=f"unix://{no_engine}")
    assert done.returncode == 3
    assert "ERROR  no Docker engine answers at" in done.stderr
    assert "Traceback" not in done.stderr
    done = kit.labs("run", "hits", "--submission=solution", "--backend=auto", DOCKER_HOST=f"unix://{no_engine}")
    assert done.returncode == 0
    assert "backend: embedded (no Docker engine answers at" in done.stdout


def test_who_is_an_orphan() -> None:
    mine = owner_of(1)
    assert not is_orphan(mine)
    host, boot, pid, started = mine.split("|")
    assert is_orphan(f"{host}|{boot}|{pid}|1.00"), "the pid is somebody else's by now"
    assert is_orphan(f"{host}|another boot|{pid}|{started}")
    assert not is_orphan(f"elsewhere|{boot}|{pid}|1.00"), "another machine's run is not ours to judge"
    assert not is_orphan("")
