"""The load generator: a Locust process that is up before its load begins."""

import contextlib
import shutil
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from runner.children import FOLDER_PREFIX, Children, Process, clean_environment
from runner.errors import BUSY_HINT, MachineError
from runner.stack import tail_of

READY_WITHIN_S = 30.0


class LoadProcess:
    """A Locust process that has been started ahead of its load and waits for orders on a socket."""

    def __init__(self, children: Children, name: str, log: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        children.own(self.folder)
        self.log = log or self.folder / "load.log"
        self.name = name
        self.listener = socket.socket(socket.AF_UNIX)
        path = self.folder / "sock"  # short: a socket's whole path may have 107 bytes only
        self.listener.bind(str(path))
        self.listener.listen(1)
        argv = [sys.executable, "-m", "runner.recorder", "drive", str(path)]
        root = Path(__file__).parent.parent
        env = {**clean_environment(self.folder), "PYTHONPATH": str(root)}
        self.process: Process = children.spawn(name, argv, env=env, cwd=self.folder, log=self.log)

    def connect(self) -> socket.socket:
        """The control connection, once Locust has been imported. Raises MachineError with the end of its log."""
        deadline = time.monotonic() + READY_WITHIN_S
        self.listener.settimeout(0.25)
        while time.monotonic() < deadline and self.process.exit_code is None:
            with contextlib.suppress(TimeoutError):
                connection, _ = self.listener.accept()
                connection.settimeout(None)
                return connection
        self.listener.close()
        raise MachineError(f"the load generator did not start (exit code {self.process.exit_code})\n{self.tail()}", BUSY_HINT)

    def tail(self) -> str:
        """What it printed last, and where the rest is."""
        self.save_log()
        return tail_of(self.log)

    def save_log(self) -> None:
        """Bring what it printed to where its log belongs, when it has started before that was known."""
        if self.log != self.process.log:
            with contextlib.suppress(OSError):  # a full disk: a log is not worth a verdict
                shutil.copyfile(self.process.log, self.log)


@dataclass(eq=False)
class HeadStart:
    """A guard and a load generator that start while the command still imports its own parts, which saves every run 0.4 s of two cores.

    The run that takes them ends them; `close` ends what none has taken.
    """

    children: Children | None
    process: LoadProcess

    @classmethod
    def make(cls) -> "HeadStart":
        """Start both; the generator's log lies in its own folder until a run takes it."""
        children = Children()
        return cls(children, LoadProcess(children, "load"))

    def take(self, log: Path | None = None) -> Children | None:
        """The guard, and with it the generator, whose log belongs at `log`; None when a run has them already."""
        children, self.children = self.children, None
        self.process.log = log or self.process.log
        return children

    def close(self) -> None:
        """End what no run has taken."""
        if (children := self.take()) is not None:
            self.process.listener.close()
            children.close()
