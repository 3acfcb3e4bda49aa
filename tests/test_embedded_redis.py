"""Valkey as a child process: who may come in, what it keeps, and what happens where no wheel is published."""

import contextlib
import dataclasses
import platform
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from runner.errors import MachineError
from runner.services import SERVICES, connect_redis
from runner.stack import Address
from runner.stack import embedded_redis as module
from runner.stack.embedded_redis import RedisServer, find_server
from runner.stack.provision import Cache

Start = Callable[[Path], Address]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server in a folder, as the stack does; where one runs already, kill it first. All end with the test."""
    running: dict[Path, tuple[subprocess.Popen[bytes], Address]] = {}

    def start_server(folder: Path) -> Address:
        if folder in running:
            before, address = running[folder]
            before.kill()
            before.wait()
        else:
            folder.mkdir()
            with socket.create_server(("127.0.0.1", 0)) as free:
                address = Address("127.0.0.1", free.getsockname()[1], password="admin-secret")
        server, cache = RedisServer(), Cache()
        server.fetch(cache)
        launch = server.launch(cache, folder, address)
        process = subprocess.Popen(launch.argv, stdout=subprocess.DEVNULL)
        running[folder] = process, address
        while True:
            with contextlib.suppress(redis.ConnectionError):
                SERVICES["redis"].probe(address)
                return address
            assert process.poll() is None, "it ended as it started"

    yield start_server
    for process, _ in running.values():
        process.kill()
        process.wait()


def test_it_answers_the_admin_and_nobody_without_the_password(start: Start, tmp_path: Path) -> None:
    address = start(tmp_path / "redis")
    with connect_redis(address) as client:
        assert client.set("key", "value")
        assert client.get("key") == "value"
    for password in ("", "wrong"):
        stranger = dataclasses.replace(address, password=password)
        with connect_redis(stranger) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_it_listens_on_loopback_alone_and_measures_latencies(start: Start, tmp_path: Path) -> None:
    with connect_redis(start(tmp_path / "redis")) as client:
        settings = client.config_get()
    assert settings["bind"] == "127.0.0.1"
    assert settings["latency-tracking"] == "yes"
    assert settings["dir"] == str(tmp_path / "redis")


def test_the_password_is_no_argument(tmp_path: Path) -> None:
    launch = RedisServer().launch(Cache(), tmp_path, Address("127.0.0.1", 1, password="admin-secret"))
    assert "admin-secret" not in " ".join(launch.argv)
    assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0


def test_a_restart_is_an_empty_server_at_the_same_place(start: Start, tmp_path: Path) -> None:
    address = start(tmp_path / "redis")
    with connect_redis(address) as client:
        client.set("key", "value")
    assert start(tmp_path / "redis") == address
    with connect_redis(address) as client:
        assert client.dbsize() == 0
    assert [path.name for path in (tmp_path / "redis").iterdir()] == ["redis.conf"]


def test_two_run_side_by_side(start: Start, tmp_path: Path) -> None:
    one, two = start(tmp_path / "one"), start(tmp_path / "two")
    with connect_redis(one) as first, connect_redis(two) as second:
        first.set("key", "value")
        assert second.get("key") is None


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SUMS", {"win_amd64": "0" * 64})


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_without_a_wheel_a_server_on_the_path_serves(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, name: str
) -> None:
    found = tmp_path / "bin" / name
    found.parent.mkdir()
    found.symlink_to(find_server(Cache()))
    request.getfixturevalue("no_wheel")
    monkeypatch.setenv("PATH", str(found.parent))
    assert find_server(Cache()) == found
    start(tmp_path / "redis")


@pytest.mark.usefixtures("no_wheel")
def test_without_any_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=rf"no wheel for .*{platform.machine()}, and no valkey-server or redis-server") as raised:
        RedisServer().fetch(Cache(tmp_path / "cache"))
    assert "install Valkey or Redis" in raised.value.hint
