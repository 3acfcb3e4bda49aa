"""A wire: what a scenario asks of one link of the fault proxy, and what the proxy says that it did."""

import http.client
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from runner.app import App, ask_control
from runner.errors import BUSY_HINT, LabError, MachineError
from runner.lab import Lab
from runner.stack import Program, Stack, tail_of

Direction = Literal["up", "down", "both"]
Scope = Literal["link", "connection"]
PROXY = "proxy"
READY_WITHIN_S = 20.0


@dataclass(frozen=True)
class LinkPlan:
    """A link to be: whoever calls `port` reaches `to` (host:port). `protocol` is kafka, mysql, redis, http, or any."""

    name: str
    port: int
    to: str
    protocol: str = "any"


def proxy_env(links: Iterable[LinkPlan], control_port: int, token: str, seed: int = 0) -> dict[str, str]:
    """The environment of `python -m runner.proxy`. HOST is 127.0.0.1 unless it is added."""
    return {
        "LINKS": json.dumps([asdict(link) for link in links]),
        "CONTROL_PORT": str(control_port),
        "CONTROL_TOKEN": token,
        "SEED": str(seed),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }


def link_name(caller: int, called: int) -> str:
    """What the link from one replica to another is called: `app-1->app-2`."""
    return f"app-{caller}->app-{called}"


def start_proxy(stack: Stack, lab: Lab, app: App, seed: int) -> "ProxyControl":
    """Start the fault proxy on the lab's wires and between the replicas of a mesh; it need not be ready yet."""
    control_port, token = stack.free_port(), secrets.token_urlsafe(18)
    known = {name: stack.address(name).port for name in lab.services} | {name: peer.port for name, peer in app.peers.items()}
    protocols = {name: name for name in lab.services} | dict.fromkeys(app.peers, "http")
    links = [LinkPlan(name, port, stack.reach(name, known[name]), protocols[name]) for name, port in app.wires.items()]
    for (caller, called), port in app.links.items():
        replica = app.replicas[called - 1]
        assert replica.port is not None
        links.append(LinkPlan(link_name(caller, called), port, stack.reach(replica.name, replica.port), "http"))
    ports = {**app.wires, "CONTROL_PORT": control_port}
    env = proxy_env(links, control_port, token, seed)
    argv = ["python", "-m", "runner.proxy"]
    stack.start_program(Program(PROXY, argv, lab.folder, env, ports, "peer", tuple(app.wires), links=tuple(app.links.values())))
    return ProxyControl(stack.host, control_port, token)


def await_proxy(stack: Stack, control: "ProxyControl") -> None:
    """Return when it takes orders: then all its links are up. Raises MachineError."""
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            control.ask("GET", "/links")
        except (OSError, http.client.HTTPException) as error:
            if stack.exit_code(PROXY) is not None or time.monotonic() > deadline:
                raise MachineError(f"the fault proxy did not start ({error})\n{tail_of(stack.log(PROXY))}", BUSY_HINT) from error
        else:
            return
        time.sleep(0.01)  # nothing tells us that a process listens


class Control(Protocol):
    """How the proxy is reached; `ProxyControl` below, or another with the same `ask`."""

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One control request; the answer's JSON. Raises LabError when it is refused, OSError when nobody answers."""


class ProxyControl:
    """The proxy's second address. The app knows neither address nor token."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._host = host
        self._port = port
        self._token = token

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One control request; the answer's JSON. Raises LabError when it is refused, OSError when nobody answers."""
        status, text = ask_control(self._host, self._port, self._token, method, path, body)
        if status != 200:
            raise LabError(f"the fault proxy refused {body or path}: {json.loads(text)['detail']}")
        return json.loads(text)


class Armed:
    """A fault on a wire: how often it did something, and its end."""

    def __init__(self, wire: "Wire", number: int) -> None:
        self.wire = wire
        self.number = number

    def tell(self) -> dict[str, Any]:
        """`seen` requests that matched, `taken` of them, `fired` messages and connections hurt, `is_healed`, `armed_ns`."""
        found: dict[str, Any] = next(fault for fault in self.wire.tell()["faults"] if fault["fault"] == self.number)
        return found

    def fired(self) -> int:
        """How many messages were delayed, held, dropped or swallowed by it, or connections cut."""
        return int(self.tell()["fired"])

    def events(self) -> list[dict[str, Any]]:
        """What happened to it, in order: `armed`, then its kind each time it hurt a message or a connection, `healed`."""
        return [event for event in self.wire.events() if event.get("fault") == self.number]

    def heal(self) -> None:
        """End it; what it held back goes on, what has lost bytes is reset."""
        self.wire.heal(self)


class Wire:
    """One link: `mysql`, `catalog`, `app-1->app-2`.

    A fault is in effect when the call returns. With a trigger it waits for a request instead: `when` is a regular expression that is searched in the
    request's text (`^QUERY UPDATE`, `^Produce`, `^SET lock:`, `^POST /charge`; the first 16 KiB of it), `nth` counts those requests from 1, `every`
    takes each so many-th, `times` bounds how often. `up` is what the client sends.
    """

    def __init__(self, name: str, control: Control) -> None:
        self.name = name
        self._control = control

    def _arm(self, kind: str, **what: object) -> Armed:
        said = {key: value for key, value in what.items() if value is not None}
        return Armed(self, self._control.ask("POST", "/arm", {"link": self.name, "kind": kind, **said})["fault"])

    def delay(
        self,
        seconds: float,
        jitter_s: float = 0.0,
        *,
        when: str | None = None,
        nth: int | None = None,
        every: int | None = None,
        times: int | None = None,
        direction: Direction = "both",
    ) -> Armed:
        """Later, in the same order. With a trigger: `up` delays the request, `down` its reply; each that matches, unless it says which."""
        return self._arm("delay", seconds=seconds, jitter_s=jitter_s, when=when, nth=nth, every=every, times=times, direction=direction)

    def hold(self, *, when: str | None = None, nth: int | None = None, times: int | None = None, direction: Direction = "up") -> Armed:
        """Not before it is healed; nothing is lost. The senders wait, as on a network that will come back."""
        return self._arm("hold", when=when, nth=nth, times=times, direction=direction)

    def cut(self, *, when: str | None = None, nth: int | None = None, every: int | None = None, scope: Scope = "link") -> Armed:
        """Reset every connection and refuse new ones; with a trigger before that request is forwarded; `connection`: only the one it came on."""
        return self._arm("cut", when=when, nth=nth, every=every, scope=scope)

    def half_open(self, direction: Literal["up", "down"], *, when: str | None = None, nth: int | None = None, scope: Scope = "link") -> Armed:
        """Drop silently what flows in one direction, ends included; connections stay."""
        return self._arm("half_open", direction=direction, when=when, nth=nth, scope=scope)

    def black_hole(self, *, when: str | None = None, nth: int | None = None, scope: Scope = "link") -> Armed:
        """Accept, read, forward nothing in either direction."""
        return self._arm("black_hole", when=when, nth=nth, scope=scope)

    def bandwidth(self, bytes_per_s: float, *, direction: Direction = "both", when: str | None = None, nth: int | None = None) -> Armed:
        """What all connections share, in each direction."""
        return self._arm("bandwidth", bytes_per_s=bytes_per_s, direction=direction, when=when, nth=nth)

    def lose_reply(self, *, when: str | None = None, nth: int | None = None, every: int | None = None, times: int | None = None) -> Armed:
        """Forward the request, swallow its reply, end that connection; once, unless it says more. It has `fired` when the server had answered."""
        return self._arm("lose_reply", when=when, nth=nth, every=every, times=times)

    def heal(self, fault: Armed | None = None) -> None:
        """End one fault, or all of this wire."""
        self._control.ask("POST", "/heal", {"link": self.name, "fault": fault and fault.number})

    def tell(self) -> Mapping[str, Any]:
        """`accepted` and `open` connections, `requests` by kind, `replies`, `bytes`, `unframed` connections, `unreachable`, `faults`."""
        links = self._control.ask("GET", "/links")
        if self.name not in links:
            raise LabError(f"no wire is called {self.name!r}", hint=f"there are {', '.join(links) or 'none'}")
        found: Mapping[str, Any] = links[self.name]
        return found

    def requests(self, kind: str | None = None) -> int:
        """How many came by: of one kind (`QUERY`, `Produce`, `GET`), or in all."""
        counts = self.tell()["requests"]
        return int(counts.get(kind, 0) if kind else sum(counts.values()))

    def fired(self) -> int:
        """How many messages and connections all faults of this wire have hurt."""
        return sum(int(fault["fired"]) for fault in self.tell()["faults"])

    def events(self) -> list[dict[str, Any]]:
        """{n, at_ns (monotonic), link, what, fault, kind, connection, message}, in order."""
        return [event for event in self._control.ask("GET", "/events")["events"] if event["link"] == self.name]
