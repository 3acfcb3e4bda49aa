"""Finding the Docker engine: where it is looked for, and what each way of not finding it says. No engine is needed."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from runner.errors import MachineError
from runner.stack import engine
from runner.stack.engine import compose_command, connect_engine, context_name, engine_environment, find_endpoint, is_engine_near

NOBODY = 65534


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the docker command's settings, empty; no variable says anything else."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "settings"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where DOCKER_HOST says the engine's socket is."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    return tmp_path / "s"


def write_context(settings: Path, name: str, host: str) -> None:
    """What `docker context create` leaves."""
    folder = settings / "contexts" / "meta" / sha256(name.encode()).hexdigest()
    folder.mkdir(parents=True)
    endpoint = {"docker": {"Host": host, "SkipTLSVerify": False}}
    (folder / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoint}))


def test_a_socket_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(MachineError, match=f"no Docker engine answers at unix://{path}: there is no such socket") as raised:
        connect_engine()
    assert "BACKEND=embedded" in raised.value.hint
    assert "infra/engine.sh" in raised.value.hint


def test_a_socket_that_nobody_listens_on_is_told(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    with pytest.raises(MachineError, match="nobody listens there"):
        connect_engine()


def test_a_socket_that_one_may_not_use_names_the_group(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        if os.geteuid() == 0:
            os.seteuid(NOBODY)
        try:
            with pytest.raises(MachineError, match="permission denied") as raised:
                connect_engine()
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
    assert "usermod -aG docker" in raised.value.hint


def test_a_remote_engine_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
    with pytest.raises(MachineError, match=f"no Docker engine answers at tcp://127.0.0.1:{port}: nobody listens there") as raised:
        connect_engine()
    assert "DOCKER_HOST" in raised.value.hint


def test_a_host_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "nonsense")
    with pytest.raises(MachineError, match=r"no Docker engine answers at nonsense: .*nonsense"):
        connect_engine()


def test_an_engine_that_wants_certificates_which_are_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"no Docker engine answers at tcp://127\.0\.0\.1:1: Path to a certificate and key"):
        connect_engine()


def test_an_engine_that_says_nothing_is_given_up(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        start = time.monotonic()
        with pytest.raises(MachineError, match=r"not within 0\.2 s"):
            connect_engine(timeout_s=0.2)
    assert time.monotonic() - start < 5


@pytest.fixture
def old_engine(path: Path) -> Iterator[None]:
    """A socket that answers as an engine of 2019 would."""
    body = json.dumps({"Version": "19.03.5", "ApiVersion": "1.40"}).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        while True:
            connection, _ = listening.accept()
            with connection:
                if asked := connection.recv(65536):
                    connection.sendall(answer)
                if b"stop" in asked:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    with socket.socket(socket.AF_UNIX) as stopping:
        stopping.connect(str(path))
        stopping.sendall(b"stop")
        thread.join()
    listening.close()


def test_an_engine_that_is_too_old_is_told(old_engine: None) -> None:
    with pytest.raises(MachineError, match=r"too old: it speaks API 1\.40, expected 1\.41 or newer"):
        connect_engine()


def test_docker_host_overrides_any_context(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_context(settings, "away", "tcp://192.0.2.1:2376")
    monkeypatch.setenv("DOCKER_CONTEXT", "away")
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.2:2376")
    assert str(find_endpoint()) == "tcp://192.0.2.2:2376"


def test_the_chosen_context_is_taken(settings: Path) -> None:
    write_context(settings, "away", "tcp://192.0.2.1:2376")
    (settings / "config.json").write_text('{"currentContext": "away"}')
    assert str(find_endpoint()) == "tcp://192.0.2.1:2376 (docker context away)"
    assert is_engine_near()


def test_a_named_context_overrides_the_chosen_one(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_context(settings, "other", "tcp://192.0.2.3:2376")
    (settings / "config.json").write_text('{"currentContext": "away"}')
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert find_endpoint().host == "tcp://192.0.2.3:2376"


def test_a_context_that_is_not_known_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    with pytest.raises(MachineError, match="there is no docker context 'nowhere'"):
        connect_engine()


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"currentContext": null}'])
def test_settings_that_choose_nothing_leave_the_default(settings: Path, text: str) -> None:
    (settings / "config.json").write_text(text)
    assert context_name() == "default"


def test_no_engine_is_near_without_socket_host_or_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "DEFAULT_HOST", f"unix://{tmp_path}/none")
    assert not is_engine_near()
    (tmp_path / "none").touch()
    assert is_engine_near()


def test_what_a_login_at_an_engine_elsewhere_needs_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")
    told = engine_environment()
    assert (told["DOCKER_HOST"], told["SSH_AUTH_SOCK"]) == ("ssh://elsewhere", "/run/agent")
    assert "SECRET_OF_THE_CALLER" not in told


def test_a_missing_docker_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="no docker command on PATH"):
        compose_command()


def test_a_missing_compose_plugin_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho \"docker: 'compose' is not a docker command.\" >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="`docker compose` does not run: docker: 'compose' is not a docker command") as raised:
        compose_command()
    assert "infra/engine.sh" in raised.value.hint
