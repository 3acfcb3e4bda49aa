"""The embedded stack: ports, programs, and real servers side by side."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.children import Children
from runner.errors import LabError, MachineError
from runner.services import connect_redis
from runner.stack import Program, tail_of
from runner.stack.embedded import EmbeddedStack
from runner.stack.embedded_redis import RedisServer
from runner.stack.ports import HOST, is_port_free
from runner.stack.provision import Cache
from runner.stack.server import Launch

LISTEN = """
import os, socket, sys
print("life", flush=True)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print("listens", flush=True)
    server.accept()
"""


@pytest.fixture
def make(temporary: Path, tmp_path: Path) -> Iterator[Callable[[str], EmbeddedStack]]:
    """Make a stack with folders of its own."""
    stacks = []

    def make_stack(name: str) -> EmbeddedStack:
        data, logs = temporary / f"{name}-data", tmp_path / f"{name}-logs"
        data.mkdir()
        logs.mkdir()
        children = Children()
        children.own(data)
        stacks.append(EmbeddedStack(children, data, logs, Cache()))
        return stacks[-1]

    yield make_stack
    for stack in stacks:
        stack.stop()


@pytest.fixture
def stack(make: Callable[[str], EmbeddedStack]) -> EmbeddedStack:
    return make("one")


def program(name: str, code: str, cwd: Path, *arguments: object, **env: str) -> Program:
    return Program(name, [sys.executable, "-c", code, *map(str, arguments)], cwd, env)


def test_no_port_is_given_twice(make: Callable[[str], EmbeddedStack]) -> None:
    one, other = make("one"), make("other")
    ports = [stack.free_port() for _ in range(100) for stack in (one, other)]
    assert len(set(ports)) == 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a port cannot be held")
def test_a_port_is_kept_for_the_program_that_got_it(stack: EmbeddedStack) -> None:
    """Nobody else is given it meanwhile, neither to listen nor for a connection of his own; a server that reuses addresses can have it."""
    port = stack.free_port()
    with socket.socket() as stranger, pytest.raises(OSError, match="Address already in use"):
        stranger.bind((HOST, port))
    assert is_port_free(port), "free to listen on"
    with socket.create_server((HOST, port)) as server:
        assert not is_port_free(port)
        with socket.create_connection(server.getsockname(), timeout=5):
            pass
    stack.stop()
    with socket.socket() as stranger:
        stranger.bind((HOST, stack.free_port() and port))


def test_a_program_runs_with_its_environment_and_log(stack: EmbeddedStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    stack.start_program(program("one", "import os; print(os.environ['GREETING'], os.getcwd(), os.environ['HOME'])", tmp_path, GREETING="hello"))
    eventually(lambda: stack.exit_code("one") == 0, "its end")
    home = stack._data / "one"
    assert stack.log("one").read_text() == f"hello {tmp_path} {home}\n"


def test_a_program_that_was_started_ahead_is_let_go(stack: EmbeddedStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    (tmp_path / "app.py").write_text("import os, redis; print(os.environ['GREETING'], os.getcwd())")
    program = Program("app-1", ["python", "app.py"], tmp_path, {"GREETING": "hello"})
    stack.start_ahead(program, ["redis"])
    begun = stack._ahead["app-1"][1].pid
    stack.start_program(replace(program, env=dict(program.env)))
    assert stack.pid("app-1") == begun
    eventually(lambda: stack.exit_code("app-1") == 0, "its end")
    stack.restart("app-1")
    eventually(lambda: stack.exit_code("app-1") == 0, "its second end")
    assert stack.log("app-1").read_text() == f"hello {tmp_path}\n" * 2


def test_another_program_than_the_one_started_ahead_replaces_it(stack: EmbeddedStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    (tmp_path / "app.py").write_text("import os; print(os.environ['GREETING'])")
    program = Program("app-1", ["python", "app.py"], tmp_path, {"GREETING": "early"})
    stack.start_ahead(program, [])
    begun = stack._ahead["app-1"][1]
    stack.start_program(replace(program, env={"GREETING": "late"}))
    assert begun.exit_code == -signal.SIGKILL
    eventually(lambda: stack.exit_code("app-1") == 0, "its end")
    assert stack.log("app-1").read_text() == "late\n"


def test_one_that_died_ahead_is_started_plainly(stack: EmbeddedStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    (tmp_path / "app.py").write_text("print('alive')")
    program = Program("app-1", ["python", "app.py"], tmp_path, {})
    stack.start_ahead(program, [])
    stack._ahead["app-1"][1].kill()
    stack.start_program(program)
    eventually(lambda: stack.exit_code("app-1") == 0, "its end")
    assert stack.log("app-1").read_text() == "alive\n"


def test_a_restart_keeps_arguments_home_and_log(stack: EmbeddedStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    stack.start_program(program("one", LISTEN, tmp_path, stack.free_port()))
    for life in (1, 2, 3):
        eventually(lambda n=life: stack.log("one").read_text() == "life\nlistens\n" * n, "it listens")
        pid = stack.pid("one")
        (stack._data / "one" / f"kept-{life}").touch()
        if life == 1:
            stack.kill("one")
            assert stack.exit_code("one") == -signal.SIGKILL
        if life < 3:
            stack.restart("one")
            assert stack.pid("one") != pid
            assert stack.exit_code("one") is None
    assert {path.name for path in (stack._data / "one").iterdir()} == {"kept-1", "kept-2", "kept-3"}


def test_pause_returns_when_it_stands_and_a_kill_ends_it_all_the_same(stack: EmbeddedStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    code = "import time\nwhile True: print(time.monotonic_ns(), flush=True); time.sleep(0.001)"
    stack.start_program(program("ticks", code, tmp_path))
    eventually(lambda: stack.log("ticks").stat().st_size > 100, "it ticks")
    stack.pause("ticks")
    assert psutil.Process(stack.pid("ticks")).status() == psutil.STATUS_STOPPED
    stack.resume("ticks")
    size = stack.log("ticks").stat().st_size
    eventually(lambda: stack.log("ticks").stat().st_size > size + 1000, "it ticks again")
    stack.pause("ticks")
    stack.kill("ticks")
    assert stack.exit_code("ticks") == -signal.SIGKILL
    stack.pause("ticks")  # what has ended cannot be paused, and does not hold the caller up


def test_a_fault_hits_what_a_program_has_started_too(stack: EmbeddedStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    """As in a container: here a script that starts the server; a server with workers is another."""
    argv = ["/bin/sh", "-c", '"$0" -c "$1" "$2"; true', sys.executable, LISTEN, str(stack.free_port())]
    stack.start_program(Program("script", argv, tmp_path, {}))
    eventually(lambda: stack.log("script").read_text() == "life\nlistens\n", "it listens")
    (server,) = psutil.Process(stack.pid("script")).children()
    stack.pause("script")
    eventually(lambda: server.status() == psutil.STATUS_STOPPED, "the server stands")
    stack.resume("script")
    eventually(lambda: server.status() == psutil.STATUS_SLEEPING, "the server goes on")
    stack.restart("script")
    eventually(lambda: stack.log("script").read_text() == "life\nlistens\n" * 2, "the port is free: it listens again")
    eventually(lambda: not psutil.pid_exists(server.pid), "the end of the first one")


def test_a_program_that_dies_as_it_is_paused(stack: EmbeddedStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    """Of its end the kernel knows before we do."""
    stack.start_program(program("dies", "import signal; signal.pause()", tmp_path))
    pid = stack.pid("dies")
    with stack._children.changed:  # so that its exit code is not noted yet
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not psutil.pid_exists(pid), "its end")
        stack.pause("dies")
    assert stack.exit_code("dies") == -signal.SIGKILL


def test_threads_are_those_of_the_whole_family(stack: EmbeddedStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    code = "import threading\nfor _ in range(20): threading.Thread(target=threading.Event().wait, daemon=True).start()\nprint('here', flush=True)\n"
    wait = "threading.Event().wait()"
    stack.start_program(program("many", f"{code}import subprocess, sys\nsubprocess.run([sys.executable, '-c', {code + wait!r}])", tmp_path))
    eventually(lambda: stack.log("many").read_text() == "here\nhere\n", "all have started")
    assert stack.threads("many") == 42
    stack.kill("many")
    assert stack.threads("many") == 0


def test_cpu_time_is_that_of_the_whole_family(stack: EmbeddedStack, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass\n"
    code = f"import subprocess, sys, threading\nburn = {burn!r}\nsubprocess.run([sys.executable, '-c', burn])\nexec(burn)\n"
    code += "print('here', flush=True)\nthreading.Event().wait()"
    stack.start_program(program("busy", code, tmp_path))
    eventually(lambda: stack.log("busy").read_text() == "here\n", "it has worked")
    used = stack.cpu_s("busy")
    assert used is not None
    assert 0.9 < used < 1.6, "half a second of its own, half a second of its child's, and two starts of Python"
    assert stack.cpu_s("busy") == pytest.approx(used, abs=0.02), "waiting does not count"
    stack.kill("busy")
    assert stack.cpu_s("busy") is None


def test_a_quit_lets_it_speak_and_ends_it_all_the_same(
    stack: EmbeddedStack, tmp_path: Path, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = "import signal, sys, time\nsignal.signal(signal.SIGQUIT, {})\nprint('here', flush=True)\nwhile True: time.sleep(60)"
    stack.start_program(program("speaks", handle.format("lambda *_: (print('stacks'), sys.exit(3))"), tmp_path))
    stack.start_program(program("deaf", handle.format("signal.SIG_IGN"), tmp_path))
    eventually(lambda: stack.log("speaks").read_text() == stack.log("deaf").read_text() == "here\n", "both run")
    stack.quit("speaks")
    assert stack.exit_code("speaks") == 3
    assert stack.log("speaks").read_text() == "here\nstacks\n"
    monkeypatch.setattr("runner.stack.embedded.QUIT_WITHIN_S", 0.3)
    stack.quit("deaf")
    assert stack.exit_code("deaf") == -signal.SIGKILL


def test_a_command_that_cannot_be_executed(stack: EmbeddedStack, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"^app-1 could not be started: No such file or directory: no-such-program$"):
        stack.start_program(Program("app-1", ["no-such-program"], tmp_path, {}))


def test_unknown_names(stack: EmbeddedStack) -> None:
    with pytest.raises(LabError, match="no service is called 'oracle'") as caught:
        stack.start_services(["oracle"])
    assert caught.value.hint == "the embedded backend has redis, mysql, kafka"
    for act in (stack.kill, stack.pause, stack.resume, stack.restart, stack.pid, stack.exit_code):
        with pytest.raises(LabError, match="nothing called 'app-9' runs here"):
            act("app-9")


def test_two_stacks_never_meet(make: Callable[[str], EmbeddedStack]) -> None:
    one, other = make("one"), make("other")
    for stack in (one, other):
        stack.start_services(["redis"])
    with connect_redis(one.address("redis")) as first, connect_redis(other.address("redis")) as second:
        assert first.set("key", "of the first")
        assert second.get("key") is None
    assert one.address("redis").password != other.address("redis").password
    one.stop()
    with connect_redis(other.address("redis")) as second:
        assert second.ping()


def test_a_killed_service_comes_back_at_its_address(stack: EmbeddedStack) -> None:
    stack.start_services(["redis"])
    address = stack.address("redis")
    stack.kill("redis")
    assert stack.exit_code("redis") == -signal.SIGKILL
    stack.restart("redis")
    assert stack.address("redis") == address
    with connect_redis(address) as client:
        assert client.ping(), "it answers when restart() returns"


def test_a_server_that_ends_at_its_start_is_the_machines_fault(stack: EmbeddedStack, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(RedisServer):
        def launch(self, *arguments: Any) -> Launch:
            launch = super().launch(*arguments)
            return Launch([*launch.argv, "--no-such-setting", "1"])

    monkeypatch.setitem(sys.modules["runner.stack.embedded"].__dict__["SERVERS"], "redis", Broken)
    with pytest.raises(MachineError, match=r"redis ended as it started \(exit code 1\)\n(?s:.*no-such-setting.*)\n  log: .*/redis\.log"):
        stack.start_services(["redis"])


def test_stopping_twice_is_harmless(stack: EmbeddedStack, tmp_path: Path) -> None:
    stack.start_program(program("one", "import signal; signal.pause()", tmp_path))
    pid, data = stack.pid("one"), stack._data
    stack.stop()
    assert not psutil.pid_exists(pid)
    assert not data.exists()
    stack.stop()


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "app-1.log"
    assert tail_of(log) == f"  | (it printed nothing)\n  log: {log}"
    log.touch()
    assert tail_of(log) == f"  | (it printed nothing)\n  log: {log}"
    log.write_bytes(b"".join(b"line %d\n" % n for n in range(5000)) + b"\xff\n")
    assert tail_of(log, lines=3) == f"  | line 4998\n  | line 4999\n  | \ufffd\n  log: {log}"
