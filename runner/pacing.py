"""What a locustfile may take from the kit: the plan of the run, arrivals of an open model, and a barrier. Works under plain Locust too."""

import json
import os
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from gevent.event import Event
from gevent.pool import Group

# Set by the recorder when the load shall end: schedules stop, what was sent is awaited.
ending = Event()


def read_plan(**defaults: Any) -> SimpleNamespace:
    """The values that the scenario passed as `lab.load(plan={...})`, over the defaults that serve a plain `locust -f` run."""
    return SimpleNamespace(**{**defaults, **json.loads(os.environ.get("LAB_PLAN", "{}"))})


def run_arrivals(offsets_s: Iterable[float], send: Callable[[int, int], object]) -> None:
    """Open model: call `send(i, intended_ns)` in a greenlet of its own at each offset from now; return when all have ended.

    An arrival never waits for the one before it (Schroeder et al., Open Versus Closed: A Cautionary Tale, NSDI 2006). `send` passes
    `context={"intended_ns": intended_ns}` to its request, so that the history knows when it should have left.
    """
    start_ns = time.monotonic_ns()
    arrivals = Group()
    try:
        for i, offset_s in enumerate(offsets_s):
            intended_ns = start_ns + int(offset_s * 1e9)
            if ending.wait(max(0.0, (intended_ns - time.monotonic_ns()) / 1e9)):
                break
            arrivals.spawn(send, i, intended_ns)
        arrivals.join()
    finally:
        arrivals.kill()


class Barrier:
    """Releases its users together: each waits until `parties` of them have come."""

    def __init__(self, parties: int) -> None:
        self._missing = parties
        self._open = Event()

    def wait(self, timeout_s: float = 30.0) -> None:
        """Wait for the others. Raises TimeoutError when they have not come within `timeout_s`."""
        self._missing -= 1
        if self._missing <= 0:
            self._open.set()
        if not self._open.wait(timeout_s):
            raise TimeoutError(f"{self._missing} users did not reach the barrier within {timeout_s:g} s")
