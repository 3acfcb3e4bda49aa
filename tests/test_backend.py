"""Which backend is taken, and what is said of it. None of this needs an engine."""

import json
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.backend import choose_backend, require_images
from runner.errors import LabError, MachineError
from runner.images import tag_of
from runner.owner import is_orphan, owner_of
from runner.stack.engine import ANSWER_WITHIN_S

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


@pytest.fixture
def busy(no_engine: Path) -> Iterator[threading.Event]:
    """An engine that tells its version at once, and what images it has (all that is asked for here) as long as it is not busy."""
    is_busy, is_over = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_about_images = "/images/" in self.path
            if is_about_images and is_busy.is_set():
                is_over.wait()
                return
            answer = [{"RepoTags": [tag_of("runtime")]}] if is_about_images else {"Version": "28.0.0", "ApiVersion": "1.47"}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None: ...

    with socketserver.ThreadingUnixStreamServer(str(no_engine), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield is_busy
        is_over.set()
        server.shutdown()
        thread.join()


def test_auto_does_not_wait_for_an_engine_that_is_busy(busy: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.backend.ASKED_WITHIN_S", 0.2)
    busy.set()
    choice = choose_backend("auto", [])
    assert choice.name == "embedded"
    assert "the Docker engine did not say which images it has" in str(choice)


def test_a_run_gives_the_engine_more_time_than_the_choice(busy: threading.Event) -> None:
    choice = choose_backend("auto", [])
    assert choice.client is not None
    assert choice.client.api.timeout == ANSWER_WITHIN_S
    choice.close()


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is but the wall clock's time")
def test_a_step_of_the_wall_clock_makes_nobody_an_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = owner_of(1)
    began = psutil.Process(1).create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: began + 3600)
    assert not is_orphan(mine)


def test_who_is_an_orphan() -> None:
    mine = owner_of(1)
    assert not is_orphan(mine)
    host, boot, pid, started = mine.split("|")
    assert is_orphan(f"{host}|{boot}|{pid}|1.00"), "the pid is somebody else's by now"
    assert is_orphan(f"{host}|another boot|{pid}|{started}")
    assert not is_orphan(f"elsewhere|{boot}|{pid}|1.00"), "another machine's run is not ours to judge"
    assert not is_orphan("")
