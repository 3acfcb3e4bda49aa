"""Starts the app under test, its replicas and the lab's peers on a stack, and knows when they are ready or dead."""

import contextlib
import http.client
import itertools
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from runner.build import REQUIREMENTS, Prepared, prepare
from runner.errors import AppError, LabError, LabsError
from runner.filling import fill_in
from runner.lab import FILLED, HOME, Lab, Submission, app_of, shown_path
from runner.prestart import can_prestart, imports_of
from runner.skew import skew_env
from runner.stack import Program, Stack, tail_of
from runner.stack.ports import HOST

PEER_READY_WITHIN_S = 20.0
CHECK, CHECKED_WITHIN_S = "check", 30.0
POLL_S = 0.01


@dataclass(frozen=True)
class Replica:
    """One replica of the app, or of one of its extra processes (which may serve no HTTP: then `port` is None)."""

    name: str
    number: int
    port: int | None


class Peer:
    """A peer's second address: what it saw and how it shall behave. The app knows neither address nor token."""

    def __init__(self, name: str, host: str, port: int, control_port: int, token: str) -> None:
        self.name = name
        self.port = port
        self._host = host
        self._control_port = control_port
        self._token = token
        self._calls: list[dict[str, Any]] = []
        self._settled = 0
        self._before = 0  # calls of earlier lives, which it does not know any more

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One control request; the answer's JSON.

        Raises LabError when the peer refuses, OSError when it cannot be reached, HTTPException or ValueError when what it answers is no answer.
        """
        status, text = ask_control(self._host, self._control_port, self._token, method, path, body)
        if status != 200:
            raise LabError(f"the peer {self.name} answered {status} to {method} {path}: {text[:200]!r}")
        return json.loads(text)

    def calls(self) -> list[dict[str, Any]]:
        """Every call it has had: {n, replica, method, path, start_ns, end_ns (None while in flight), status, ...what the peer noted}."""
        self._calls[self._settled :] = self.ask("GET", f"/calls?after={self._settled - self._before}")
        while self._settled < len(self._calls) and self._calls[self._settled]["end_ns"] is not None:
            self._settled += 1  # a call that has ended never changes: it need not be asked for again
        return list(self._calls)

    def begin_anew(self) -> None:
        """It was restarted: its ledger is empty, what we have of it stays."""
        self._before = self._settled = len(self._calls)

    def set(self, **state: object) -> None:
        """Change how it behaves from now on."""
        self.ask("POST", "/state", state)


class App:
    """The replicas of one submission."""

    def __init__(self, stack: Stack, lab: Lab, submission: Submission) -> None:
        self._stack = stack
        self._lab = lab
        self._submission = submission
        self._table = app_of(lab, submission.path)
        self._prepared = Prepared(submission.path)
        self.service_env: Mapping[str, str] = {}
        self.peers: dict[str, Peer] = {}
        self.replicas: list[Replica] = []
        self.extras: list[Replica] = []
        self.wires: dict[str, int] = {}  # service or peer -> the port at which the app finds it
        self.links: dict[tuple[int, int], int] = {}  # (caller, called) -> the port at which that replica finds the other
        self._killed: set[str] = set()

    def lay_out(self) -> None:
        """Choose the port of each replica and extra process, before anything starts."""
        app = self._table
        for n in range(1, app.replicas + 1):
            self.replicas.append(Replica(f"app-{n}", n, self._stack.free_port()))
        for kind, extra in app.extra.items():
            for n in range(1, extra.replicas + 1):
                self.extras.append(Replica(f"{kind}-{n}", n, self._stack.free_port() if extra.has_port else None))
        ports = [replica.port for replica in (*self.replicas, *self.extras) if replica.port is not None]
        self.wires = {name: self._stack.free_port() for name in self._lab.wires}
        if app.mesh:
            numbers = [replica.number for replica in self.replicas]
            self.links = {pair: self._stack.free_port() for pair in itertools.permutations(numbers, 2)}
        self._stack.open(self._lab.folder, ports, [replica.name for replica in self.replicas] if app.data_dir else ())

    def start_peers(self, seed: int) -> None:
        """Start the lab's peers; they need not be ready yet."""
        for name, peer in self._lab.peers.items():
            ports = self._stack.free_port(), self._stack.free_port()
            self.peers[name] = Peer(name, self._stack.host, *ports, secrets.token_urlsafe(18))
            env = {
                "PORT": str(ports[0]),
                "CONTROL_PORT": str(ports[1]),
                "CONTROL_TOKEN": self.peers[name]._token,  # noqa: SLF001
                "SEED": str(seed),
                "PYTHONPATH": str(Path(__file__).parent.parent),
            }
            named = {"PORT": ports[0], "CONTROL_PORT": ports[1]}
            public = () if name in self.wires else ("PORT",)
            self._stack.start_program(Program(name, peer.command, self._lab.folder, env, named, "peer", public))

    def await_peers(self) -> None:
        """Return when each peer has answered. Raises LabError: a peer is the lab's own code."""
        for name, peer in self.peers.items():
            deadline = time.monotonic() + PEER_READY_WITHIN_S
            while True:
                try:
                    peer.ask("GET", "/calls")
                    break
                except (OSError, http.client.HTTPException, ValueError) as error:
                    code = self._stack.exit_code(name)
                    if code is not None or time.monotonic() > deadline:
                        end = f"ended with exit code {code}" if code is not None else f"did not answer ({error})"
                        raise LabError(f"the peer {name} {end}\n{tail_of(self._stack.log(name))}") from error
                time.sleep(POLL_S)  # nothing tells us that a process listens

    def start_ahead(self) -> None:
        """Have the app's Python programs import their libraries before it is to start. What is wrong with the submission is `prepare`'s to say."""
        folder = self._submission.path
        with contextlib.suppress(LabsError, OSError):
            self._table = app_of(self._lab, folder)
            commands = self._commands()
            if self._table.build or (folder / REQUIREMENTS).exists() or not all(can_prestart(command) for _, command in commands):
                return
            self._prepared = prepare(folder, self._table, self._stack.log("build"), backend=self._stack.backend)
            for replica, command in commands:
                self._stack.start_ahead(self._program_of(replica.name, replica, command), imports_of(folder, command))

    def prepare(self) -> None:
        """Build the submission as it is now, and hand it to the stack. Raises AppError."""
        self._table = app_of(self._lab, self._submission.path)
        self._prepared = prepare(self._submission.path, self._table, self._stack.log("build"), backend=self._stack.backend)
        self._stack.refresh(self._prepared.folder)
        if self._table.check:
            self._check(self._table.check)

    def start(self) -> None:
        """Start all replicas and extra processes; they need not be ready yet."""
        for replica, command in self._commands():
            self._stack.start_program(self._program_of(replica.name, replica, command))

    def _commands(self) -> list[tuple[Replica, tuple[str, ...]]]:
        """Each process of the app and what it runs."""
        extras = [(replica, self._table.extra[replica.name.rpartition("-")[0]].command) for replica in self.extras]
        return [*((replica, self._table.command) for replica in self.replicas), *extras]

    def _check(self, command: tuple[str, ...]) -> None:
        """Have the server itself judge the submission, as the first replica would find it. Raises AppError in its words."""
        program = self._program_of(CHECK, self.replicas[0], command)
        self._stack.start_program(program)
        deadline = time.monotonic() + CHECKED_WITHIN_S
        while (code := self._stack.exit_code(CHECK)) is None and time.monotonic() < deadline:
            time.sleep(POLL_S)  # a container's end and a process's are told in different ways
        if code is None:
            self._stack.kill(CHECK)
        if code != 0:
            ended = f"did not end within {CHECKED_WITHIN_S:g} s" if code is None else f"ended with exit code {code}"
            said = tail_of(self._stack.log(CHECK)).replace(f"{self._stack.filled(CHECK)}/", "")
            mine = shown_path(self._submission.path)
            raise AppError(f"{mine} does not pass `{' '.join(command)}`: it {ended}\n{said}", hint=f"mend it in {mine} and run again")

    def _program_of(self, name: str, replica: Replica, command: tuple[str, ...]) -> Program:
        env = {**self._prepared.env, **self.service_env, "REPLICA": str(replica.number)}
        if replica.port is not None:
            env["PORT"] = str(replica.port)
        for called, peer in self.peers.items():
            # The path says which replica calls: truth that needs no word of the app.
            key, address = env_name(called), f"{HOST}:{self.wires.get(called, peer.port)}"
            env |= {f"{key}_URL": f"http://{address}/{replica.name}"} if self._lab.peers[called].http else {f"{key}_ADDRESS": address}
        for kind, extra in self._table.extra.items():
            if extra.has_port:
                env[f"{env_name(kind)}_ADDRESSES"] = ",".join(f"{HOST}:{r.port}" for r in self.extras if r.name.rpartition("-")[0] == kind)
        if self.links:
            env["PEERS"] = ",".join(f"http://{HOST}:{port}" for (caller, _), port in sorted(self.links.items()) if caller == replica.number)
        if self._table.skewable:
            env |= skew_env(self._stack.shims())
        if self._prepared.packages:
            env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(self._prepared.packages)]))  # the clock's shim first
        places = {HOME: self._stack.home(name), FILLED: self._stack.filled(name)}
        argv = self._prepared.fill_in(command, replica.port, places)
        is_filled = any(FILLED in word for word in command)
        files = fill_in(self._prepared.folder, {**env, "HOME": places[HOME]}) if is_filled else {}
        return Program(name, argv, self._prepared.folder, env, files=files)

    def await_ready(self) -> None:
        """Return when every replica has answered its readiness request. Raises AppError with the last log lines."""
        app = self._table
        for replica in self.replicas:
            self.await_replica(replica, app.ready)
        for replica in self.extras:
            extra = app.extra[replica.name.rpartition("-")[0]]
            if extra.ready:
                self.await_replica(replica, extra.ready)

    def await_replica(self, replica: Replica, ready: str) -> None:
        """Return when one replica has answered `ready` ("GET /healthz") with a 2xx."""
        method, _, path = ready.partition(" ")
        within_s = self._table.ready_within_s
        self._stack.exit_code(replica.name)  # waits for a start under way: the time that a container takes is not the app's
        deadline = time.monotonic() + within_s
        seen = "no connection"
        while True:
            try:
                with contextlib.closing(http.client.HTTPConnection(self._stack.host, replica.port, timeout=2)) as connection:
                    connection.request(method, path)
                    status = connection.getresponse().status
                if 200 <= status < 300:
                    return
                seen = f"status {status}"
            except (OSError, http.client.HTTPException) as error:
                seen = str(error) or type(error).__name__
            code = self._stack.exit_code(replica.name)
            if code is not None or time.monotonic() > deadline:
                raise self._not_ready(replica, ready, within_s, code, seen)
            time.sleep(POLL_S)  # nothing tells us that a process listens

    def _not_ready(self, replica: Replica, ready: str, within_s: float, code: int | None, seen: str) -> AppError:
        log = tail_of(self._stack.log(replica.name))
        if code is not None:
            what = f"{replica.name} ended before it answered {ready} (exit code {code})"
            return AppError(f"{what}\n{log}", hint=f"it did not start: mend it in {self._submission.path} and run again")
        what = f"{replica.name} did not answer {ready} within {within_s:g} s ({seen})"
        elsewhere = listening_ports(self._stack.pid(replica.name)) - {replica.port}
        if elsewhere:
            ports = ", ".join(map(str, sorted(elsewhere)))
            return AppError(f"{what}\nit listens on port {ports} instead of $PORT={replica.port}\n{log}", hint="listen on the port in $PORT")
        return AppError(f"{what}\n{log}", hint=f"listen on $PORT and answer {ready} with a 2xx status once you can serve")

    def check_alive(self) -> None:
        """Raises AppError when a process of the app has ended that the kit did not kill."""
        for replica in [*self.replicas, *self.extras]:
            code = self._stack.exit_code(replica.name)
            if code is not None and replica.name not in self._killed:
                log = tail_of(self._stack.log(replica.name))
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                raise AppError(f"{replica.name} died while it served ({how})\n{log}", hint="nobody killed it: it crashed or stopped itself")

    def cpu_waits_ns(self) -> dict[int, int]:
        """How long the main thread of each process of a replica has waited for a CPU so far, by pid; empty where the kernel does not tell.

        Source: Linux, Documentation/scheduler/sched-stats.rst: /proc/<pid>/schedstat, second field, in ns.
        """
        waits: dict[int, int] = {}
        for replica in self.replicas:
            for pid in family_of(self._stack.pid(replica.name)):
                with contextlib.suppress(OSError):
                    waits[pid] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
        return waits

    def number_of(self, name: str) -> int | None:
        """The number of the replica called `name`; None for anything else."""
        return next((r.number for r in self.replicas if r.name == name), None)

    def kill(self, name: str) -> None:
        """SIGKILL one of its processes; from here on its death is no crash."""
        self._killed.add(name)
        self._stack.kill(name)

    def quit(self, name: str) -> None:
        """SIGQUIT one of its processes; from here on its death is no crash."""
        self._killed.add(name)
        self._stack.quit(name)

    def restart(self, name: str) -> None:
        """Start a killed process anew and return when it is ready."""
        self._stack.restart(name)
        self._killed.discard(name)
        if name in self.peers:
            self.peers[name].begin_anew()
            self.await_peers()
        for replica in self.replicas:
            if replica.name == name:
                self.await_replica(replica, self._table.ready)
        for replica in self.extras:
            if replica.name == name and (ready := self._table.extra[name.rpartition("-")[0]].ready):
                self.await_replica(replica, ready)


def ask_control(host: str, port: int, token: str, method: str, path: str, body: object) -> tuple[int, bytes]:
    """One request to the second address of a peer or of the fault proxy; status and body. Raises OSError or HTTPException."""
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=10)) as connection:
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def env_name(name: str) -> str:
    """The name of a process in the names of environment variables: PRICE_LIST for price-list."""
    return name.upper().replace("-", "_")


@dataclass(frozen=True)
class Answer:
    """What a replica answered to one request."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        """The body as JSON; None when it is not JSON."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return None


def ask_replica(host: str, replica: Replica, method: str, path: str, body: object, headers: Mapping[str, str]) -> Answer:
    """One request to one replica. Raises AppError when it cannot be reached or answers no HTTP within 10 s."""
    connection = http.client.HTTPConnection(host, replica.port, timeout=10)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        raise AppError(f"{replica.name} gave no answer to {method} {path}: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()


def family_of(pid: int) -> list[int]:
    """A process and all below it: servers such as nginx leave the work to others. Empty when the process is not known (0)."""
    if not pid:
        return []
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return [pid]


def listening_ports(pid: int) -> set[int]:
    """The TCP ports that a process or its children listen on, as the kernel tells. Empty when the process is not known (0)."""
    if not pid:
        return set()
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return {c.laddr.port for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    except psutil.Error:
        return set()
