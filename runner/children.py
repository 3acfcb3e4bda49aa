"""The runner's side of the guard: starting, signalling and awaiting the processes of one run."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.errors import MachineError
from runner.owner import owner_of

ANSWER_WITHIN_S = 30.0
LAST_WITHIN_S = 90.0  # the guard gives each command that it runs at the end 60 s
OWNER_FILE = ".guard"
FOLDER_PREFIX = "backend-labs-run-"  # of temporary folders, and of nobody else's: `labs doctor --fix` removes those that no guard answers for


class Process:
    """One process of the run. Its exit code is known as soon as the guard has reaped it."""

    def __init__(self, children: "Children", name: str, number: int, pid: int, log: Path) -> None:
        self._children = children
        self._number = number
        self.name = name
        self.pid = pid
        self.log = log

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._children.exit_codes.get(self._number)

    def signal(self, signo: int) -> None:
        """Send a signal, unless it has ended already; SIGKILL, SIGSTOP and SIGCONT to all of its process group."""
        self._children.send({"do": "signal", "pid": self.pid, "signo": int(signo)})

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, or None if it still runs after `timeout_s`. Raises MachineError when nobody is left who would tell it."""
        with self._children.changed:
            self._children.changed.wait_for(lambda: self.exit_code is not None or self._children.is_gone, timeout_s)
        if self.exit_code is None and self._children.is_gone:
            raise MachineError(f"the guard process is gone, and {self.name} with it", hint="was it killed? run again")
        return self.exit_code

    def kill(self) -> None:
        """SIGKILL, and return when it is gone. Raises MachineError when it does not end, or the guard is gone."""
        self.signal(signal.SIGKILL)
        if self.wait(ANSWER_WITHIN_S) is None:
            raise MachineError(f"{self.name} (pid {self.pid}) did not end within {ANSWER_WITHIN_S:g} s of SIGKILL")


class Children:
    """All processes of one run, held by one guard."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        guard = Path(__file__).with_name("guard.py")
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(guard), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        theirs.close()
        self._socket = ours
        self._ids = itertools.count()
        self._answers: dict[int, dict[str, Any]] = {}
        self._send_lock = threading.Lock()
        self.changed = threading.Condition()
        self.exit_codes: dict[int, int] = {}
        self.is_gone = False  # the guard, and with it all that it held
        self._reader = threading.Thread(target=self._read, name="guard-events", daemon=True)
        self._reader.start()

    def spawn(self, name: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> Process:
        """Start a process in a session of its own. Raises MachineError when it cannot be executed."""
        answer = self._ask({"do": "spawn", "argv": list(argv), "env": dict(env), "cwd": str(cwd), "log": str(log)})
        if answer["event"] == "failed":
            raise MachineError(f"{name} could not be started: {answer['error']}", hint=f"the command was: {' '.join(argv)}")
        return Process(self, name, answer["id"], answer["pid"], log)

    def own(self, folder: Path) -> None:
        """Have the guard remove `folder` at the end, whatever happens to us. Raises MachineError when it is gone."""
        self._ask({"do": "own", "folder": str(folder)})
        with contextlib.suppress(OSError):  # a full disk: only `labs doctor` reads it
            (folder / OWNER_FILE).write_text(owner_of(self.guard_pid))

    def at_end(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Have the guard run a command after it has ended everything, whatever happens to us. Raises MachineError when it is gone."""
        self._ask({"do": "at_end", "argv": list(argv), "env": dict(env)})

    @property
    def guard_pid(self) -> int:
        """The guard's process id."""
        return self._guard.pid

    def close(self, *, is_swept: bool = False) -> None:
        """End every process and remove every owned folder; returns when both are done. `is_swept`: what `at_end` is for has been done."""
        try:
            self.send({"do": "end", "is_swept": is_swept})
            self._guard.wait(ANSWER_WITHIN_S if is_swept else LAST_WITHIN_S)
        except (MachineError, subprocess.TimeoutExpired):
            self._guard.kill()
            self._guard.wait()
        self._socket.close()

    def send(self, request: Mapping[str, Any]) -> None:
        """Send one request to the guard, without waiting for an answer. Raises MachineError when it is gone."""
        try:
            with self._send_lock:
                self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise MachineError(f"the guard process is gone ({error})", hint="was it killed? run again") from error

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        self.send({**request, "id": number})
        with self.changed:
            self.changed.wait_for(lambda: number in self._answers or self.is_gone, ANSWER_WITHIN_S)
        if number not in self._answers:
            raise MachineError("the guard process did not answer", hint="was it killed? run again")
        return self._answers.pop(number)

    def _read(self) -> None:
        pending = b""
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                data = b""
            *lines, pending = (pending + data).split(b"\n")
            with self.changed:
                for line in lines:
                    event = json.loads(line)
                    if event["event"] == "exited":
                        self.exit_codes[event["child"]] = event["code"]
                    elif "id" in event:
                        self._answers[event["id"]] = event
                self.is_gone = not data
                self.changed.notify_all()
            if not data:
                return


def clean_environment(home: Path) -> dict[str, str]:
    """What any child gets: a search path that starts with this Python's scripts, a home of its own, and nothing else of ours."""
    scripts = str(Path(sys.executable).parent)
    return {
        "PATH": os.pathsep.join([scripts, "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
