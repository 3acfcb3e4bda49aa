"""A run in Docker: the same verdicts as embedded, faults, several side by side, and nothing left after any end."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import psutil
import pytest

from runner.backend import choose_backend
from runner.children import Children
from runner.errors import LabError
from runner.services import connect_kafka, connect_mysql, connect_redis
from runner.stack import Program
from runner.stack.docker import DockerStack
from runner.stack.sweep import RUN_LABEL, orphaned_runs, things_of

if TYPE_CHECKING:
    from conftest import Kit

SERVICES = ("redis", "mysql", "kafka")


@pytest.fixture
def stack(images: None, untouched: None, tmp_path: Path) -> Iterator[DockerStack]:
    """A stack with the servers up, before any program."""
    choice = choose_backend("docker", SERVICES)
    assert choice.client is not None
    folder = tmp_path / "submission"
    folder.mkdir()
    (folder / "app.py").write_text("import signal\nprint('here', flush=True)\nsignal.pause()\n")
    one = DockerStack(choice.client, Children(), tmp_path)
    try:
        one.open(folder, [one.free_port()])
        one.start_services(SERVICES)
        one.refresh(folder)
        yield one
    finally:
        one.stop()


def test_servers_answer_and_come_back_at_their_addresses(stack: DockerStack) -> None:
    with connect_redis(stack.address("redis")) as client:
        client.set("a", "b")
    with connect_mysql(stack.address("mysql"), database=None) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE kept")
        cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
        assert [row["Value"] for row in cursor.fetchall()] == [""], "a wire could tell no statements apart"
    for name in SERVICES:
        stack.kill(name)
        assert stack.exit_code(name) == -signal.SIGKILL
        stack.restart(name)
        assert stack.exit_code(name) is None
    with connect_redis(stack.address("redis")) as client:
        assert client.get("a") is None, "Redis keeps nothing"
    with connect_mysql(stack.address("mysql"), database="kept") as connection:
        assert connection.open, "MySQL keeps everything"
    with connect_kafka(stack.address("kafka")) as admin:
        assert admin.describe_cluster()["brokers"]


def test_a_paused_server_keeps_its_connections(stack: DockerStack) -> None:
    with connect_redis(stack.address("redis")) as client:
        client.ping()
        stack.pause("redis")
        began = time.monotonic()
        connection: Any = client.connection_pool.get_connection()
        connection.send_command("PING")
        assert not connection.can_read(timeout=0.3)
        stack.resume("redis")
        assert connection.read_response() in (b"PONG", "PONG")
        assert time.monotonic() - began >= 0.3


def test_programs(stack: DockerStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    stack.start_program(Program("app-1", ["python", "app.py"], tmp_path, {"A": "b"}))
    assert stack.exit_code("app-1") is None
    eventually(lambda: "here" in stack.log("app-1").read_text(), "its output")
    assert psutil.Process(stack.pid("app-1")).cmdline() == ["python", "app.py"]
    stack.pause("app-1")
    stack.kill("app-1")
    assert stack.exit_code("app-1") == -signal.SIGKILL
    stack.restart("app-1")
    eventually(lambda: stack.log("app-1").read_text().count("here") == 2, "its output after the restart")
    with pytest.raises(LabError, match="nothing called 'app-2' runs here"):
        stack.kill("app-2")


def test_a_fault_on_what_has_ended_or_was_not_paused_is_none(stack: DockerStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    stack.resume("redis")
    stack.start_program(Program("app-1", ["python", "-c", "pass"], tmp_path, {}))
    eventually(lambda: stack.exit_code("app-1") == 0, "its end")
    stack.pause("app-1")
    stack.resume("app-1")
    assert stack.skew("app-1", 60, 1) is False


def test_a_program_that_was_started_ahead(stack: DockerStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    """It is let go, or replaced by another one, or started plainly when it died meanwhile."""
    ahead = {name: Program(name, ["python", "app.py"], tmp_path, {"A": "b"}) for name in ("app-1", "app-2", "app-3")}
    for program in ahead.values():
        stack.start_ahead(program, ["redis"])
    for _, started in stack._ahead.values():
        started.result()
    begun = dict(stack._ids)
    stack._api.kill(begun["app-3"])
    stack._await_end("app-3")
    stack.start_program(replace(ahead["app-1"], env={"A": "b"}))
    stack.start_program(replace(ahead["app-2"], env={"A": "c"}))
    stack.start_program(ahead["app-3"])
    for name in ahead:
        assert stack.exit_code(name) is None
        eventually(lambda name=name: "here" in stack.log(name).read_text(), "its output")
    assert [stack._ids[name] == begun[name] for name in ahead] == [True, False, False]
    stack.kill("app-1")
    stack.restart("app-1")
    eventually(lambda: stack.log("app-1").read_text().count("here") == 2, "its output after the restart")


def test_threads_and_cpu_time_are_counted_and_a_quit_lets_it_speak(
    stack: DockerStack, tmp_path: Path, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import signal, sys, threading\n"
        "signal.signal(signal.SIGQUIT, lambda *_: (print('stacks', flush=True), sys.exit(3)))\n"
        "for _ in range(20): threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "import time\nwhile time.process_time() < 0.5: pass\n"
        "print('here', flush=True)\n"
        "signal.pause()\n"
    )
    stack.start_program(Program("app-1", ["python", "-c", code], tmp_path, {}))
    assert stack.exit_code("app-1") is None
    eventually(lambda: "here" in stack.log("app-1").read_text(), "its output")
    assert stack.threads("app-1") == 21
    used = stack.cpu_s("app-1")
    assert used is not None
    assert 0.4 < used < 1.6
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(stack, "pid", lambda _: 0)
        assert stack.cpu_s("app-1") == pytest.approx(used, abs=0.1), "the engine's word, as of an engine on another machine"
    stack.quit("app-1")
    assert stack.exit_code("app-1") == 3
    assert "stacks" in stack.log("app-1").read_text()
    assert stack.threads("app-1") == 0
    assert stack.cpu_s("app-1") is None


@pytest.mark.parametrize(("submission", "code"), [("starter", 1), ("solution", 0), ("wrong/numbers-twice", 1)])
def test_the_verdicts_are_those_of_the_other_backend(in_docker: "Kit", submission: str, code: int) -> None:
    done = in_docker.labs("run", "hits", f"--submission={submission}")
    assert done.returncode == code, done.stdout + done.stderr
    assert re.search(rf"{'PASS' if code == 0 else 'FAIL'}  hits   {submission}   docker", done.stdout)


def test_two_runs_side_by_side(in_docker: "Kit") -> None:
    runs = [in_docker.start("run", "bench", "--submission=solution", f"--run-folder={in_docker.root / str(n)}") for n in range(2)]
    for run in runs:
        assert run.wait(60) == 0


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("after_s", [0.4, 1.2, 2.5])
def test_nothing_is_left_whatever_ends_it(
    in_docker: "Kit", engine: docker.DockerClient, eventually: Callable[..., Any], signo: int, after_s: float
) -> None:
    run = in_docker.start("run", "bench", "--submission=solution", "--keep")
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(after_s)
    run.send_signal(signo)
    run.wait(60)
    eventually(lambda: not in_docker_now(engine), "the end of every container", 30)


def test_what_the_engine_still_makes_after_an_interrupt_is_removed(
    engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = choose_backend("docker", SERVICES)
    assert choice.client is not None
    one = DockerStack(choice.client, Children(), tmp_path)
    make = one._api.create_network
    late = threading.Timer(1, lambda: make(f"{one.run}_default", labels=one._labels))

    def be_interrupted(*_: object, **__: object) -> None:
        late.start()
        raise KeyboardInterrupt

    monkeypatch.setattr(one._api, "create_network", be_interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            one.open(tmp_path, [one.free_port()])
    finally:
        one.stop()
    assert late.finished.is_set()
    assert not list(things_of(engine, {"label": f"{RUN_LABEL}={one.run}"}))


def in_docker_now(engine: docker.DockerClient) -> list[Any]:
    """The containers and networks of runs."""
    filters = {"label": RUN_LABEL}
    return [*engine.api.containers(all=True, filters=filters), *engine.api.networks(filters=filters)]


def test_the_doctor_removes_what_a_killed_guard_left(in_docker: "Kit", engine: docker.DockerClient, eventually: Callable[..., Any]) -> None:
    run = in_docker.start("run", "bench", "--submission=solution", "--keep")
    eventually(lambda: len(engine.containers.list(filters={"label": RUN_LABEL})) == 6, "all containers of the run", 60)
    assert orphaned_runs(engine) == {}
    guards = [p for p in psutil.Process(run.pid).children() if any("guard.py" in word for word in p.cmdline())]
    assert len(guards) == 1
    for process in (psutil.Process(run.pid), *guards):
        process.suspend()  # both are stopped before either can act on the other's end
    for process in (*guards, psutil.Process(run.pid)):
        os.kill(process.pid, signal.SIGKILL)
    run.wait(30)
    eventually(lambda: orphaned_runs(engine), "an orphaned run")
    told = in_docker.labs("doctor")
    assert told.returncode == 1
    assert "left over  container labs-" in told.stdout
    mended = in_docker.labs("doctor", "--fix")
    assert mended.returncode == 0, mended.stdout
    assert orphaned_runs(engine) == {}
    assert not in_docker_now(engine)
