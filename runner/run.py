"""One run of one submission of one lab: what it starts, what a scenario and its checks may ask of it, and its end."""

import contextlib
import http.client
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from runner.app import Answer, App, Peer, ask_replica
from runner.backend import Choice
from runner.children import FOLDER_PREFIX, Children
from runner.counters import OPENERS, Sampler, write_counters
from runner.errors import Inconclusive, LabError
from runner.generator import HeadStart, LoadProcess
from runner.lab import Lab, Submission
from runner.load import POLL_S, Load
from runner.mesh import Mesh
from runner.services import SERVICES, connect_mysql, connect_redis
from runner.skew import WITHIN_S
from runner.stack import Address, Stack
from runner.verdict import Comparison
from runner.wire import ProxyControl, Wire, await_proxy, start_proxy

CPU_WAIT_LIMIT = 0.4


@dataclass(frozen=True)
class Doubt:
    """Why what a check saw may be no fault of the app."""

    what: str
    stalled_s: float
    cpu_wait_share: float

    def stretch(self, seconds: float) -> float:
        """How long what should take `seconds` takes at most on such a machine."""
        return seconds / max(1 - self.cpu_wait_share, 0.1) + self.stalled_s


def new_seed() -> int:
    """For one run. There are more than an app could try against what it sees of a lab's world."""
    return random.SystemRandom().randrange(2**48)


class Run:
    """What tests get as `lab`."""

    is_patient = False  # whether the load's users wait for an answer without a limit

    def __init__(
        self, lab: Lab, submission: Submission, folder: Path, seed: int, backend: Choice | None = None, ahead: HeadStart | None = None
    ) -> None:
        self.lab = lab
        self.submission = submission
        self.folder = folder
        self.seed = seed
        self.backend = backend or Choice("embedded")
        self.created_ns = time.monotonic_ns()
        self.random = random.Random(seed)
        self.loads: list[Load] = []
        self.comparisons: list[Comparison] = []
        self.doubts: list[Doubt] = []  # of the check that is on, taken by the judge
        self.events: list[dict[str, Any]] = []
        self.is_narrated = False
        self.clock: Callable[[], float] = time.monotonic  # what limits of time go by
        self._ahead = ahead
        self._samplers: list[Sampler] = []
        self._idle: LoadProcess | None = None
        self._proxy: ProxyControl | None = None
        self._accounts: dict[str, str] = {}  # service -> the app's password
        self._waited_until_ns = 0

    def start(self, *, with_load: bool = True) -> None:
        """Start services, peers, the app and the load generator, side by side where they do not need each other."""
        self.warm_up(with_load=with_load)
        self.start_app()

    def warm_up(self, *, with_load: bool = True) -> None:
        """Start all but the app."""
        taken = self._ahead.take(self.folder / "load.log") if self._ahead and with_load else None
        if taken is None:
            self._ahead = None
        self.children = taken or Children()
        self._data = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        self.children.own(self._data)
        self.stack = self._make_stack()
        self.app = App(self.stack, self.lab, self.submission)
        self.app.lay_out()
        self.app.start_peers(self.seed)
        if self._ahead is not None:
            self._idle = self._ahead.process
        elif with_load:
            self._idle = LoadProcess(self.children, "load", self.folder / "load.log")
        wires = {name: port for name, port in self.app.wires.items() if name in self.lab.services}
        self.stack.choose_addresses(self.lab.services, wires)
        if self.app.wires or self.app.links:
            self._proxy = start_proxy(self.stack, self.lab, self.app, self.seed)
        self.app.service_env = self._start_services()

    def start_app(self) -> None:
        """Start the app as it is now, and return when everything is ready."""
        self.app.prepare()
        self.app.start()
        self.app.await_peers()
        if self._proxy is not None:
            await_proxy(self.stack, self._proxy)
        self.app.await_ready()
        self.mark("app ready")

    def _make_stack(self) -> Stack:
        if self.backend.client is not None:
            from runner.stack.docker import DockerStack

            return DockerStack(self.backend.client, self.children, self.folder)
        from runner.stack.embedded import EmbeddedStack
        from runner.stack.provision import Cache

        return EmbeddedStack(self.children, self._data, self.folder, Cache())

    def _start_services(self) -> dict[str, str]:
        """Start them, give the app accounts of its own, and return what the app may know."""
        self.stack.start_services(self.lab.services)
        env: dict[str, str] = {}
        for name in self.lab.services:
            address, password = self.stack.address(name), token_urlsafe(18)
            SERVICES[name].prepare(address, password, self.lab.schema_of(name))
            self._accounts[name] = password
            env |= SERVICES[name].app_env(replace(address, port=self.app.wires.get(name, address.port)), password)
        return env

    def save_ledgers(self) -> None:
        """Write what each peer saw beside the history, as `<peer>-calls.json`."""
        for name, peer in self.app.peers.items():
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, LabError):  # a peer that a fault has ended tells nothing
                (self.folder / f"{name}-calls.json").write_text(json.dumps(peer.calls()))

    def stop(self) -> None:
        """End everything. Safe to call after a failed `start`."""
        with contextlib.suppress(Exception):  # a full disk, or an interpreter that is going: neither may keep the rest from its end
            if self._ahead is not None:
                self._ahead.process.save_log()
            write_counters(self.folder, self._samplers)
        if hasattr(self, "stack"):
            self.stack.stop()
        elif hasattr(self, "children"):
            self.children.close()

    # What a scenario does.

    def load(
        self,
        users: int,
        *,
        until: Callable[[], object] | None = None,
        endless: bool = False,
        at_most_s: float = 45.0,
        plan: Mapping[str, object] | None = None,
    ) -> Load:
        """A load of the lab's locustfile: fixed work (every user ends by itself), `until` a state is seen, or `endless`: as long as its block.

        `plan` reaches the locustfile through `read_plan`; the seed is in it. `at_most_s` bounds a run that would never end: the load is then
        cut short, which `is_cut_short` tells.
        """
        number = len(self.loads) + 1
        if number == 1:
            self._samplers = [Sampler(name, partial(self.stack.address, name)) for name in self.lab.services if name in OPENERS]
        worker, self._idle = self._idle, None
        if worker is None:
            worker = LoadProcess(self.children, f"load-{number}", self.folder / f"load-{number}.log")
        start = {
            "locustfile": str(self.lab.folder / "locustfile.py"),
            "history": str(self.folder / ("history.jsonl" if number == 1 else f"history-{number}.jsonl")),
            "targets": self.targets,
            "down": [r.number for r in self.app.replicas if self.stack.exit_code(r.name) is not None],
            "users": users,
            "plan": {"seed": self.seed, **(plan or {})},
            "is_patient": self.is_patient,
        }
        self.loads.append(Load(worker, start, until, at_most_s, endless, self.app, self.clock))
        return self.loads[-1]

    def until(self, state: Callable[[], object], at_most_s: float) -> bool:
        """Wait until `state()` is true, outside a load; whether it became so within `at_most_s`."""
        deadline = self.clock() + at_most_s
        try:
            while not (is_so := bool(state())):
                self.app.check_alive()
                if self.clock() > deadline:
                    break
                time.sleep(POLL_S)  # the state lives in other processes: there is nothing to block on
            return is_so
        finally:
            self._waited_until_ns = time.monotonic_ns()

    @property
    def incident_s(self) -> float:
        """Seconds from the first load's begin to the end of the last load or wait: what a run cannot do without."""
        if not self.loads:
            return 0.0
        return (max(self._waited_until_ns, *(load.end_ns for load in self.loads)) - self.loads[0].start_ns) / 1e9

    def wire(self, name: str) -> Wire:
        """The connections of the app's processes to a service or peer among the lab's `wires`, where they can be hurt."""
        if self._proxy is None or name not in self.app.wires:
            raise LabError(f"the lab has no wire {name!r}", hint=f"`wires` in lab.toml has {', '.join(self.lab.wires) or 'none'}")
        return Wire(name, self._proxy)

    @property
    def mesh(self) -> Mesh:
        """The links between the replicas, where they can be cut."""
        if self._proxy is None or not self.app.links:
            raise LabError("the replicas of this lab have no links", hint="`mesh = true` under [app] in lab.toml gives them some")
        return Mesh(self._proxy, [replica.number for replica in self.app.replicas], self.mark)

    def peer(self, name: str) -> Peer:
        """A peer's control address."""
        if name not in self.app.peers:
            raise LabError(f"no peer is called {name!r}", hint=f"lab.toml names {', '.join(self.app.peers) or 'none'}")
        return self.app.peers[name]

    def redis(self) -> Any:
        """A redis-py client with the kit's own account."""
        return connect_redis(self.stack.address("redis"))

    def mysql(self) -> Any:
        """A PyMySQL connection (autocommit, rows as dicts) with the kit's own account."""
        return connect_mysql(self.stack.address("mysql"))

    def address(self, service: str) -> Address:
        """Where a service listens."""
        return self.stack.address(service)

    @property
    def targets(self) -> list[str]:
        """Where the load finds each replica."""
        return [f"http://{self.stack.host}:{r.port}" for r in self.app.replicas]

    @property
    def replicas(self) -> list[str]:
        """The names of the app's replicas: `app-1`, ..."""
        return [r.name for r in self.app.replicas]

    def call(self, method: str, path: str, body: object = None, *, replica: int = 1, headers: Mapping[str, str] | None = None) -> Answer:
        """One request to a replica, outside any load, for the contract's examples. Raises AppError when nothing answers."""
        return ask_replica(self.stack.host, self.app.replicas[replica - 1], method, path, body, headers or {})

    def kill(self, name: str) -> None:
        """SIGKILL a replica, a peer or a service; no new request of the load goes to a dead replica. Raises MachineError when it does not end."""
        if number := self.app.number_of(name):
            self._tell_load("mark_down", number)
        self.app.kill(name)
        self.mark(f"killed {name}")

    def pause(self, name: str) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        self.stack.pause(name)
        self.mark(f"paused {name}")

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self.stack.resume(name)
        self.mark(f"resumed {name}")

    def restart(self, name: str) -> None:
        """Start it anew with its data; returns when it serves again. Raises AppError (a replica), LabError (a peer), MachineError (a service)."""
        self.app.restart(name)
        if name in self._accounts:
            SERVICES[name].prepare(self.stack.address(name), self._accounts[name], "")  # Redis has forgotten the app's account
        if number := self.app.number_of(name):
            self._tell_load("mark_up", number)
        self.mark(f"restarted {name}")

    def threads(self, name: str) -> int:
        """How many threads of the operating system a process and all below it have now, by the kernel."""
        return self.stack.threads(name)

    def cpu_s(self, name: str) -> float:
        """Seconds of CPU, user and system, that a process and all below it have used since its start, by the kernel: waiting does not count.

        Raises AppError when it is a replica that has died, LabError for anything else that has ended.
        """
        used = self.stack.cpu_s(name)
        if used is None:
            self.app.check_alive()
            raise LabError(f"{name} has ended, and its CPU time with it", hint="ask before it is killed")
        return used

    def quit(self, name: str) -> str:
        """End a process by SIGQUIT, at which Go's runtime prints where each goroutine stands, and return what it has printed in all.

        Source: Go, package os/signal, "Default behavior of signals in Go programs".
        """
        if number := self.app.number_of(name):
            self._tell_load("mark_down", number)
        self.app.quit(name)
        self.mark(f"quit {name}")
        return self.stack.log(name).read_text(encoding="utf-8", errors="replace")

    def skew(self, name: str, offset_s: float) -> bool:
        """Shift the wall clock of a replica of a `skewable` app; False when its runtime is not Python and cannot be shifted. Raises MachineError."""
        took = self.stack.skew(name, offset_s, WITHIN_S)
        self.mark(f"clock of {name} shifted by {offset_s:g} s" if took else f"clock of {name} could not be shifted")
        return took

    def mark(self, what: str) -> int:
        """Note an event of the scenario for the report; returns its time (monotonic ns)."""
        now_ns = time.monotonic_ns()
        self.events.append({"at_ns": now_ns, "what": what})
        if self.is_narrated:
            print(f"  {(now_ns - self.created_ns) / 1e9:5.1f} s  {what}", file=sys.stderr, flush=True)
        return now_ns

    def addresses(self) -> str:
        """Where everything listens, a line each, for a person."""
        lines = [f"  {r.name:<12} http://{self.stack.host}:{r.port}" for r in self.app.replicas]
        lines += [f"  {name:<12} http://{self.stack.host}:{peer.port}" for name, peer in self.app.peers.items()]
        lines += [f"  {key:<12} {value}" for key, value in self.app.service_env.items()]
        return "\n".join(lines)

    def _tell_load(self, order: str, replica: int) -> None:
        for load in self.loads[-1:]:
            if not load.is_over:
                getattr(load, order)(replica)

    # What a check does.

    def require(self, condition: object, what: str) -> None:
        """Raises Inconclusive unless `condition` holds: the run did not show what the check needs."""
        if not condition:
            raise Inconclusive(what)

    def require_calm(self, load: Load, stall_s: float = 1.0) -> None:
        """Have an assertion of this check that fails from here on count as INCONCLUSIVE when the machine was slow, not the app.

        It was when the load stalled for over `stall_s`, or a replica was ready to run and had no CPU for 40% of the load's time. What holds on
        such a machine holds all the same.
        """
        stalled_s, waited = load.history.longest_stall_s, load.cpu_wait_share
        if stalled_s >= stall_s:
            self.doubts.append(Doubt(f"the machine stood still for {stalled_s:.1f} s", stalled_s, waited))
        elif waited >= CPU_WAIT_LIMIT:
            self.doubts.append(Doubt(f"a replica was ready to run and had no CPU for {waited:.0%} of the time", stalled_s, waited))

    def at_most(self, value: float, limit: float, seen: str, what: str = "", *, is_time: bool = False) -> None:
        """Assert `value <= limit`, and record how far it was from it. `seen` is the assertion's message.

        `is_time`: it is in seconds, so a slow machine (`require_calm`) explains no more of it than its own share, and the rest is the app's.
        """
        if is_time and all(value > doubt.stretch(limit) for doubt in self.doubts):
            self.doubts.clear()
        self._compare(Comparison(what, value, limit, is_upper=True), seen)

    def at_least(self, value: float, limit: float, seen: str, what: str = "") -> None:
        """Assert `value >= limit`, and record how far it was from it. `seen` is the assertion's message."""
        self._compare(Comparison(what, value, limit, is_upper=False), seen)

    def _compare(self, comparison: Comparison, seen: str) -> None:
        self.comparisons.append(comparison)
        if not comparison.holds:
            raise AssertionError(seen)
