"""Runs one Locust load in its own process and gives its history back."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from runner.errors import BUSY_HINT, LabError, MachineError
from runner.generator import LoadProcess
from runner.growing import GrowingHistory
from runner.history import History, Record

T = TypeVar("T")


class NotReachedError(Exception):
    """The state that a scenario waited for did not come; ends the block under the load, nothing else."""


DRAINED_WITHIN_S = 25.0
POLL_S = 0.005


class Watched(Protocol):
    """What a load must know of the app that it drives."""

    def check_alive(self) -> None:
        """Raises AppError when it has died."""

    def cpu_waits_ns(self) -> dict[int, int]:
        """How long each process has waited for a CPU so far, by pid."""


class Load:
    """A load under way, then its history. Use as a context manager: leaving the block waits for its end, or ends an endless one."""

    def __init__(
        self,
        worker: LoadProcess,
        start: Mapping[str, Any],
        until: Callable[[], object] | None,
        at_most_s: float,
        is_endless: bool,
        app: Watched,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker = worker
        self._clock = clock
        self._start = start
        self._until = until
        self._at_most_s = at_most_s
        self._is_endless = is_endless
        self._app = app
        self._done: dict[str, Any] | None = None
        self._growing = GrowingHistory(Path(start["history"]))
        self._so_far: list[Record] = []
        self._connection = worker.connect()
        self._reader = threading.Thread(target=self._read, name="load-events", daemon=True)
        self.history = History()
        self.missed = ""  # what the scenario waited for in vain
        self.cpu_wait_share = 0.0  # of the load's time, the most that a replica was ready to run and had no CPU
        self.is_cut_short = False  # whether `at_most_s` ended it
        self.start_ns = self.end_ns = 0

    def __enter__(self) -> Self:
        self.start_ns = time.monotonic_ns()
        self._deadline = self._clock() + self._at_most_s
        self._waits_ns = self._app.cpu_waits_ns()
        self._send(self._start)
        self._reader.start()
        return self

    def _share_of_cpu_wait(self) -> float:
        now = self._app.cpu_waits_ns()
        waited_ns = [now[pid] - before for pid, before in self._waits_ns.items() if pid in now]
        return max(waited_ns, default=0) / max(time.monotonic_ns() - self.start_ns, 1)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        is_mine = isinstance(error, NotReachedError)
        try:
            if error is None or is_mine:
                self._await_end()
        finally:
            self._send({"do": "stop"})
            self._reader.join(DRAINED_WITHIN_S)
            self._is_late = self._reader.is_alive()  # neither done nor gone
            self.end_ns = time.monotonic_ns()
            self.cpu_wait_share = self._share_of_cpu_wait()
            self._worker.process.kill()
            self._connection.close()
            self._worker.listener.close()
        if error is None or is_mine:
            self._app.check_alive()
            self._judge_end()
            self.history = History.read(Path(self._start["history"]))
        return is_mine

    @property
    def is_over(self) -> bool:
        """Whether every user has ended."""
        return self._done is not None or self._worker.process.exit_code is not None

    @property
    def seconds(self) -> float:
        """How long the load ran, in seconds."""
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def elapsed_s(self) -> float:
        """Seconds since the load began, while it runs."""
        return (time.monotonic_ns() - self.start_ns) / 1e9

    def until(self, state: Callable[[], T], what: str, at_most_s: float = float("inf")) -> T:
        """Wait until `state()` is true while the load goes on, and return it.

        When the load ends or `at_most_s` pass before that, the rest of the block is left out and `missed` says `what`: it is for the checks to
        say whether they can judge without it.
        """
        deadline = min(self._deadline, self._clock() + at_most_s)
        while not (value := state()):
            self._app.check_alive()
            if self.is_over or self._clock() > deadline:
                self.missed = what
                raise NotReachedError(what)
            time.sleep(POLL_S)  # the state lives in other processes: there is nothing to block on
        return value

    def so_far(self, since_ns: int = 0) -> list[Record]:
        """While the load runs: the requests that have ended, of those sent after `since_ns`, in the order of their ends."""
        self._so_far += self._growing.new_records()
        return [record for record in self._so_far if record.start_ns > since_ns]

    def mark_down(self, replica: int) -> None:
        """Send no new request to a replica: the balancer has noticed that it is gone."""
        self._send({"do": "down", "replica": replica})

    def mark_up(self, replica: int) -> None:
        """Send requests to a replica again."""
        self._send({"do": "up", "replica": replica})

    def _await_end(self) -> None:
        while not self.is_over and not self._is_endless:
            if self._until is not None and self._until():
                return
            self._app.check_alive()
            if self._clock() > self._deadline:
                self.is_cut_short = True
                return
            time.sleep(POLL_S)  # as in `until`

    def _judge_end(self) -> None:
        if self._done is None:
            ended = f"did not end within {DRAINED_WITHIN_S:g} s" if self._is_late else f"ended early (exit code {self._worker.process.exit_code})"
            raise MachineError(f"the load generator {ended}\n{self._worker.tail()}", BUSY_HINT)
        if self._done["error_count"]:
            raise LabError(f"the locustfile failed {self._done['error_count']} times; the first:\n{self._done['errors'][0]}")

    def _send(self, order: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it may have ended by itself, which `_judge_end` tells
            self._connection.sendall(json.dumps(order).encode() + b"\n")

    def _read(self) -> None:
        with self._connection.makefile("r") as lines, contextlib.suppress(OSError):
            for line in lines:
                event = json.loads(line)
                if event["event"] == "done":
                    self._done = event
                    return
