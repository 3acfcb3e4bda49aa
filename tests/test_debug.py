"""`labs run --debug-app`: an editor's side of the Debug Adapter Protocol stops the app, and no limit of time goes on meanwhile."""

import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from runner.debug import DebugRun, is_python, place_debuggers, under_debugger, under_debuggers
from runner.errors import LabError, MachineError
from runner.lab import Submission, read_lab

if TYPE_CHECKING:
    from conftest import Kit

LABS = Path(__file__).parent / "labs"
STOPPED_S = 3.0


class Editor:
    """The client of a debugger (Debug Adapter Protocol: a header Content-Length, then JSON)."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.stream = self.connection.makefile("rb")
        self.numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def send(self, command: str, **arguments: Any) -> int:
        """One request; its number."""
        number = next(self.numbers)
        data = json.dumps({"seq": number, "type": "request", "command": command, "arguments": arguments}).encode()
        self.connection.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        return number

    def read(self) -> dict[str, Any]:
        """The next message."""
        length = 0
        while (line := self.stream.readline().strip()) or not length:
            length = int(line.partition(b":")[2]) if line.lower().startswith(b"content-length") else length
        message: dict[str, Any] = json.loads(self.stream.read(length))
        return message

    def await_event(self, name: str) -> dict[str, Any]:
        """Read until an event comes."""
        while (message := self.read())["type"] != "event" or message["event"] != name:
            pass
        return message

    def await_answer(self, number: int) -> dict[str, Any]:
        """Read until a request has its answer."""
        while (message := self.read())["type"] != "response" or message["request_seq"] != number:
            pass
        assert message["success"], message
        return message

    def attach(self, file: Path, lines: list[int]) -> None:
        """Attach, with breakpoints."""
        self.await_answer(self.send("initialize", adapterID="debugpy", clientID="test", pathFormat="path"))
        self.send("attach", justMyCode=True)
        self.await_event("initialized")
        self.break_at(file, lines)
        self.await_answer(self.send("configurationDone"))

    def break_at(self, file: Path, lines: list[int]) -> None:
        """Set the breakpoints of a file."""
        self.await_answer(self.send("setBreakpoints", source={"path": str(file)}, breakpoints=[{"line": line} for line in lines]))

    def close(self) -> None:
        """Go."""
        self.stream.close()
        self.connection.close()


@pytest.fixture
def editors() -> Iterator[Callable[[int], Editor]]:
    """Editors that attach to a port."""
    opened: list[Editor] = []

    def attach(port: int) -> Editor:
        opened.append(Editor(port))
        return opened[-1]

    yield attach
    for editor in opened:
        editor.close()


def test_a_breakpoint_stops_the_app_and_every_limit(kit: "Kit", editors: Callable[[int], Editor], unused_ports: Callable[[int], list[int]]) -> None:
    (port,) = unused_ports(1)
    kit.edit("microservices/hits/test_lab.py", "at_most_s=10", f"at_most_s={STOPPED_S - 1}")
    kit.edit("microservices/hits/test_lab.py", '        lab.mark("the visitors come")', '        lab.kill("app-1")\n        lab.pause("app-1")')
    process = kit.start("run", "hits", "--submission=solution", "--debug-app", f"--debug-port={port}")
    assert process.stdout is not None
    said = ""
    while not said.endswith("the app waits for that\n"):
        line = process.stdout.readline()
        assert line, said
        said += line
    assert f"debugger: attach to app at 127.0.0.1:{port}" in said
    editor = editors(port)
    app = kit.lab("hits") / "solution" / "app.py"
    place = next(number for number, line in enumerate(app.read_text().splitlines(), 1) if 'number = state["answers"]' in line)
    editor.attach(app, [place])
    thread = editor.await_event("stopped")["body"]["threadId"]
    # The app stands still for longer than the load may take, and than a visitor waits.
    time.sleep(STOPPED_S)
    editor.break_at(app, [])
    editor.await_answer(editor.send("continue", threadId=thread))
    said = process.stdout.read()
    assert process.wait(60) == 0, said
    assert "PASS  hits   solution" in said
    assert "20 requests, 0 without an answer" in said
    assert re.search(r"app-1 is not killed: it is being debugged\n.*app-1 is not paused", said)
    assert "What it came to is no verdict." in said
    assert not (kit.root / ".labs" / "progress.json").exists()


def test_what_cannot_be_debugged_is_said(kit: "Kit") -> None:
    done = kit.labs("run", "hits", "--submission=starter", "--debug-app", "--backend=docker")
    assert done.returncode == 3
    assert "--debug-app runs embedded alone" in done.stderr
    kit.edit("microservices/hits/lab.toml", 'command = ["python", "app.py"]', 'command = ["sh", "-c", "python app.py"]')
    done = kit.labs("run", "hits", "--submission=starter", "--debug-app")
    assert done.returncode == 3
    assert "`sh` runs no Python that --debug-app knows" in done.stderr


def test_a_port_that_is_taken_is_said() -> None:
    lab = read_lab(LABS / "microservices" / "hits")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(MachineError, match="no debugger can listen on"):
        place_debuggers(lab, Submission("starter", lab.folder / "starter", "starter"), taken.getsockname()[1])


def test_a_port_that_is_none_is_said() -> None:
    lab = read_lab(LABS / "microservices" / "hits")
    with pytest.raises(LabError, match="--debug-port 0 is no port"):
        place_debuggers(lab, Submission("starter", lab.folder / "starter", "starter"), 0)


def test_an_address_is_told_once_somebody_listens_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The app may be built for minutes, and the worker may have died."""
    run: Any = DebugRun.__new__(DebugRun)
    run.debuggers = {"app": 7000, "worker": 7001}
    run.children = SimpleNamespace(guard_pid=1)
    run._is_over = threading.Event()
    looks: Iterator[set[int]] = iter([set(), {7000}, {7000}])

    def look(_: int) -> set[int]:
        if (found := next(looks, None)) is None:
            run._is_over.set()
        return found or set()

    monkeypatch.setattr("runner.debug.listening_ports", look)
    run._tell_addresses()
    assert capsys.readouterr().out == "debugger: attach to app at 127.0.0.1:7000; the app waits for that\n"


def test_a_worker_that_the_submission_runs_otherwise_has_no_debugger(tmp_path: Path, unused_ports: Callable[[int], list[int]]) -> None:
    lab = read_lab(LABS / "middleware" / "bench")
    (tmp_path / "app.toml").write_text('[extra.worker]\ncommand = ["python", "other.py"]\n')
    (port,) = unused_ports(1)
    assert place_debuggers(lab, Submission("x", tmp_path, "path"), port) == {"app": port}


def test_a_submission_that_says_how_it_runs_is_refused(tmp_path: Path) -> None:
    lab = read_lab(LABS / "microservices" / "hits")
    (tmp_path / "app.toml").write_text('command = ["python", "other.py"]\n')
    with pytest.raises(LabError, match=r"own app\.toml"):
        place_debuggers(lab, Submission("x", tmp_path, "path"), 0)


def test_each_kind_of_process_is_one_and_has_its_debugger(unused_ports: Callable[[int], list[int]]) -> None:
    lab = read_lab(LABS / "middleware" / "bench")
    assert lab.app.replicas > 1
    found = under_debuggers(lab, {kind: 7000 + n for n, kind in enumerate(["app", *lab.app.extra])})
    assert found.app.replicas == 1
    assert [extra.replicas for extra in found.app.extra.values()] == [1] * len(lab.app.extra)
    assert "127.0.0.1:7000" in found.app.command
    assert "--wait-for-client" in found.app.command
    assert all("--wait-for-client" not in extra.command for extra in found.app.extra.values())
    assert lab.app.replicas > 1, "the lab itself is as it was"


def test_commands() -> None:
    head = ("python", "-X", "frozen_modules=off", "-m", "debugpy", "--listen", "127.0.0.1:5678")
    assert under_debugger(("uvicorn", "app:app", "--port", "{port}"), 5678, waits=True) == (
        *(*head, "--wait-for-client"),
        *("-m", "uvicorn", "app:app", "--port", "{port}"),
    )
    assert under_debugger(("python", "worker.py"), 5678, waits=False) == (*head, "worker.py")
    assert [is_python((word, "x")) for word in ("python", "uvicorn", "node", "{out}/app")] == [True, True, False, False]
