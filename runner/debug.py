"""`labs run --debug-app`: a lab's run with the app under debugpy. One process of each kind, which no fault hits, and limits that wait for you."""

import contextlib
import http.client
import importlib.util
import math
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.app import Answer, listening_ports
from runner.errors import LabError, MachineError
from runner.generator import HeadStart
from runner.lab import Lab, Submission, app_of
from runner.run import Run
from runner.stack.ports import HOST

PROBE_S = 0.5
NO_LIMIT_S = math.inf


class AwakeClock:
    """Seconds in which the app answered: while it stands at a breakpoint, no time limit of a scenario goes on."""

    def __init__(self) -> None:
        self._awake_s = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="awake-clock", daemon=True)
        self._address: tuple[str, int] = (HOST, 0)
        self._request = ("GET", "/")

    def __call__(self) -> float:
        """The seconds so far."""
        return self._awake_s

    def start(self, port: int, ready: str) -> None:
        """Watch the app, which answers `ready` ("GET /healthz") when it can."""
        method, _, path = ready.partition(" ")
        self._address, self._request = (HOST, port), (method, path)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._is_over.wait(PROBE_S / 2):
            is_awake = self._answers()
            now = time.monotonic()
            self._awake_s += now - last if is_awake else 0.0
            last = now

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(*self._address, timeout=PROBE_S)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request(*self._request)
            return connection.getresponse().status < 500
        return False


class DebugRun(Run):
    """A run in which a person may stop the app wherever they like."""

    is_patient = True

    def __init__(self, lab: Lab, submission: Submission, folder: Path, seed: int, port: int, ahead: HeadStart | None = None) -> None:
        self.debuggers = place_debuggers(lab, submission, port)
        self._is_over = threading.Event()
        self._all_replicas = lab.app.replicas
        self._spared = {f"app-{n}" for n in range(1, lab.app.replicas + 1)}
        self._spared |= {f"{kind}-{n}" for kind, extra in lab.app.extra.items() for n in range(1, extra.replicas + 1)}
        super().__init__(under_debuggers(lab, self.debuggers), submission, folder, seed, ahead=ahead)
        self.clock = self._awake = AwakeClock()

    def start_app(self) -> None:
        """Start it, say where debuggers attach, and return when somebody has done so and it serves."""
        threading.Thread(target=self._tell_addresses, name="debugger-addresses", daemon=True).start()
        super().start_app()
        replica = self.app.replicas[0]
        assert replica.port is not None
        self._awake.start(replica.port, self.lab.app.ready)

    def stop(self) -> None:
        """End everything."""
        self._is_over.set()
        self._awake.stop()
        super().stop()

    @property
    def targets(self) -> list[str]:
        """Where the load finds each replica that the lab means: they are one."""
        return super().targets * self._all_replicas

    def call(self, method: str, path: str, body: object = None, *, replica: int = 1, headers: Mapping[str, str] | None = None) -> Answer:  # noqa: ARG002
        """One request to the one replica."""
        return super().call(method, path, body, headers=headers)

    def kill(self, name: str) -> None:
        """As ever, but for the app."""
        if not self._is_spared("killed", name):
            super().kill(name)

    def pause(self, name: str) -> None:
        """As ever, but for the app."""
        if not self._is_spared("paused", name):
            super().pause(name)

    def resume(self, name: str) -> None:
        """As ever, but for the app."""
        if not self._is_spared("resumed", name):
            super().resume(name)

    def restart(self, name: str) -> None:
        """As ever, but for the app."""
        if not self._is_spared("restarted", name):
            super().restart(name)

    def skew(self, name: str, offset_s: float) -> bool:
        """As ever, but for the app."""
        return False if self._is_spared("shifted", name) else super().skew(name, offset_s)

    def _tell_addresses(self) -> None:
        """Say where debuggers attach, each once it can: an editor that comes too early gives up. What pip installs first may take minutes."""
        wanted = dict(reversed(self.debuggers.items()))
        while wanted and not self._is_over.wait(PROBE_S / 10):  # nothing tells us that a process listens
            there = listening_ports(self.children.guard_pid)
            for kind in [kind for kind, port in wanted.items() if port in there]:
                waits = "the app waits for that" if kind == "app" else "it waits for nobody"
                print(f"debugger: attach to {kind} at {HOST}:{wanted.pop(kind)}; {waits}", flush=True)

    def _is_spared(self, done: str, name: str) -> bool:
        if name in self._spared:
            self.mark(f"{name} is not {done}: it is being debugged")
        return name in self._spared


def place_debuggers(lab: Lab, submission: Submission, port: int) -> dict[str, int]:
    """Which kinds of process get a debugger, and on which port: the app, then its further processes in Python. Raises LabError, MachineError.

    A further process with a command of the submission's own runs without one.
    """
    if importlib.util.find_spec("debugpy") is None:
        raise MachineError("debugpy is not installed", f"`make debug NAME={lab.name}` installs it")
    table = app_of(lab, submission.path)
    if table.command != lab.app.command:
        raise LabError("the submission's own app.toml says how it runs", "--debug-app knows the lab's own command alone")
    if table.mesh:
        raise LabError(f"the replicas of {lab.name} speak with each other, and --debug-app runs one", "print, and read app-1.log in the run's folder")
    if not is_python(table.command):
        raise LabError(f"`{table.command[0]}` runs no Python that --debug-app knows", "it knows `python file.py`, `python -m module` and `uvicorn`")
    if port < 1:
        raise LabError(f"--debug-port {port} is no port", "an editor has to know it: say one from 1 to 65535")
    kinds = ["app", *(kind for kind, extra in table.extra.items() if is_python(extra.command) and extra.command == lab.app.extra[kind].command)]
    found = {kind: port + place for place, kind in enumerate(kinds)}
    for one in found.values():
        try:
            socket.create_server((HOST, one)).close()
        except (OSError, OverflowError) as error:
            raise MachineError(f"no debugger can listen on {HOST}:{one}: {error}", "say another: --debug-port") from error
    return found


def under_debuggers(lab: Lab, debuggers: Mapping[str, int]) -> Lab:
    """The lab with one process of each kind, and debugpy before its command."""
    extra = {
        kind: table.model_copy(
            update={"replicas": 1, **({"command": under_debugger(table.command, debuggers[kind], waits=False)} if kind in debuggers else {})}
        )
        for kind, table in lab.app.extra.items()
    }
    command = under_debugger(lab.app.command, debuggers["app"], waits=True)
    app: Any = lab.app.model_copy(update={"command": command, "replicas": 1, "ready_within_s": NO_LIMIT_S, "extra": extra})
    return lab.model_copy(update={"app": app})


def is_python(command: tuple[str, ...]) -> bool:
    """Whether debugpy can run it."""
    return command[0] in ("python", "python3", "uvicorn")


def under_debugger(command: tuple[str, ...], port: int, *, waits: bool) -> tuple[str, ...]:
    """A command with debugpy before it."""
    program = command[1:] if command[0] != "uvicorn" else ("-m", *command)
    # Frozen modules of the standard library cannot be stepped into, and debugpy warns of them at length.
    return ("python", "-X", "frozen_modules=off", "-m", "debugpy", "--listen", f"{HOST}:{port}", *(["--wait-for-client"] * waits), *program)
