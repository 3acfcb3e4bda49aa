"""A link of the proxy: a port that leads to a server, the connections on it, the faults in effect, and what happened."""

import asyncio
import random
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from runner.proxy.fault import DOWN, UP, Fault, FaultError, Spec, read_fault
from runner.proxy.frames import PROTOCOLS, Message
from runner.proxy.relay import Connection, Side

EVENTS_KEPT = 20_000
SHOWN = 160  # bytes of a message in an event
BACKLOG = 1024


@dataclass
class Ledger:
    """What all links tell, in order. Beyond a limit events are only counted."""

    events: list[dict[str, Any]] = field(default_factory=list)
    left_out: int = 0
    faults: int = 0

    def add(self, event: dict[str, Any]) -> None:
        """Note it, if there is room."""
        if len(self.events) < EVENTS_KEPT:
            self.events.append({"n": len(self.events) + 1, "at_ns": time.monotonic_ns(), **event})
        else:
            self.left_out += 1


class Link:
    """One `listen_port -> host:port`."""

    def __init__(self, name: str, port: int, target: tuple[str, int], protocol: str, host: str, ledger: Ledger, chance: random.Random) -> None:
        if protocol not in PROTOCOLS:
            raise FaultError(f"the link {name} speaks {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
        self.name = name
        self.port = port
        self.target = target
        self.protocol = protocol
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.requests: Counter[str] = Counter()
        self.replies = 0
        self.volume = {UP: 0, DOWN: 0}
        self.unframed = 0
        self.unreachable = 0
        self.faults: dict[int, Fault] = {}
        self.refresh()
        self._host = host
        self._ledger = ledger
        self._chance = chance
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def listen(self) -> None:
        """Take connections. Raises OSError."""
        self.loop = asyncio.get_running_loop()
        if self._listener is None:
            self._listener = socket.create_server((self._host, self.port), backlog=BACKLOG)
            self._listener.setblocking(False)
            self.loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Take those who wait. Not asyncio's own server: closed in the wrong turn of the loop, it forgets a socket that it has just accepted."""
        assert self._listener is not None
        for _ in range(BACKLOG):
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # gone before it was taken, or too many files are open
                self.note("not accepted", error=str(error))
                return
            self.accepted += 1
            side = Connection(self, self.accepted).client
            task = self.loop.create_task(self.loop.connect_accepted_socket(partial(pick, side), client))
            self._tasks.add(task)  # the loop itself keeps no hold of a task
            task.add_done_callback(self._tasks.discard)

    def is_cut(self) -> bool:
        """Whether nobody may connect."""
        return any(fault.kind == "cut" and fault.is_on for fault in self.faults.values())

    def refresh(self) -> None:
        """Sort the faults by what they do now. Called whenever one changed."""
        on = [fault for fault in self.faults.values() if fault.is_on and not fault.is_healed]
        waiting = [fault for fault in self.faults.values() if fault.is_triggered and not (fault.is_on or fault.is_healed or fault.is_spent)]
        self.triggered = waiting
        self.delays = by_direction(on, "delay")
        self.holds = by_direction(on, "hold")
        self.drops = by_direction(on, "half_open", "black_hole")
        self.paces = by_direction(on, "bandwidth")
        self.is_calm = not on and not waiting

    def arm(self, spec: Spec) -> Fault:
        """A new fault, in effect when this returns, unless it waits for a request. Raises FaultError."""
        fault = read_fault(self._ledger.faults + 1, spec)
        self._ledger.faults = fault.number
        self.faults[fault.number] = fault
        self.note("armed", fault)
        if not fault.is_triggered:
            self.switch_on(fault)
        self.refresh()
        return fault

    def switch_on(self, fault: Fault) -> None:
        """In effect on the whole link, until it is healed."""
        fault.is_on = True
        self.refresh()
        if fault.kind == "cut":
            if self._listener is not None:
                self.loop.remove_reader(self._listener)
                self._listener.close()
                self._listener = None
            fault.fired += len(self.connections)
            self.note("cut", fault, connections=len(self.connections))
            for connection in list(self.connections):
                connection.abort()
        else:
            self._pump()

    def heal(self, number: int | None) -> None:
        """End one fault or all. A connection that has lost bytes is reset: what came next would be garbage. Raises FaultError, OSError."""
        if number is not None and number not in self.faults:
            raise FaultError(f"the link {self.name} has no fault {number}")
        for fault in self.faults.values():
            if number in {None, fault.number} and not fault.is_healed:
                fault.is_healed = True
                fault.is_on = False
                self.note("healed", fault)
        self.refresh()
        for connection in list(self.connections):
            for flow in (connection.up, connection.down):
                if flow.dropped_by is not None and flow.dropped_by.is_healed:
                    flow.dropped_by = None
            if connection.is_spoilt:
                connection.abort()
        self._pump()
        if not self.is_cut():
            self.listen()

    def _pump(self) -> None:
        for connection in list(self.connections):
            connection.up.pump()
            connection.down.pump()

    def pick_delay(self, fault: Fault) -> float:
        """Seconds, the jitter evenly to both sides."""
        return max(0.0, fault.seconds + self._chance.uniform(-fault.jitter_s, fault.jitter_s))

    def count(self, message: Message) -> None:
        """A request, by its kind."""
        self.requests[message.kind if message.kind in self.requests or len(self.requests) < 100 else "other"] += 1

    def note(self, what: str, fault: Fault | None = None, message: Message | None = None, **more: Any) -> None:
        """An event, for the kit."""
        event: dict[str, Any] = {"link": self.name, "what": what}
        if fault is not None:
            event["fault"] = fault.number
            if what != fault.kind:
                event["kind"] = fault.kind
        if message is not None:
            event["message"] = message.text[:SHOWN].split(b"\r\n")[0].decode("utf-8", "backslashreplace")
        self._ledger.add({**event, **more})

    def tell(self) -> dict[str, Any]:
        """What the kit is told of it."""
        return {
            "accepted": self.accepted,
            "open": len(self.connections),
            "requests": dict(self.requests),
            "replies": self.replies,
            "bytes": dict(self.volume),
            "unframed": self.unframed,
            "unreachable": self.unreachable,
            "faults": [fault.tell() for fault in self.faults.values()],
        }


def pick(side: Side) -> Side:
    """A protocol factory for one connection."""
    return side


def by_direction(faults: list[Fault], *kinds: str) -> dict[str, list[Fault]]:
    """Those of some kinds, for each direction."""
    return {direction: [fault for fault in faults if fault.kind in kinds and fault.acts(direction)] for direction in (UP, DOWN)}
