"""The embedded backend: real servers, peers and replicas as child processes on free loopback ports. Not a sandbox."""

import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from secrets import token_urlsafe

import psutil

from runner.build import write_files
from runner.children import Children, Process, clean_environment
from runner.errors import LabError, MachineError
from runner.prestart import prestart_argv
from runner.services import await_service
from runner.shims.shift import shift
from runner.skew import SHIMS
from runner.stack import NO_WIRES, QUIT_WITHIN_S, Address, Program
from runner.stack.cpu import cpu_of, threads_of
from runner.stack.embedded_kafka import KafkaServer
from runner.stack.embedded_mysql import MysqlServer
from runner.stack.embedded_redis import RedisServer
from runner.stack.ports import HOST, Ports
from runner.stack.provision import Cache
from runner.stack.server import EmbeddedServer

FILLED = "filled"
STANDS_WITHIN_S = 5.0
SERVERS: dict[str, type[EmbeddedServer]] = {"redis": RedisServer, "mysql": MysqlServer, "kafka": KafkaServer}


class EmbeddedStack:
    """One run's processes on this machine (implements `Stack`)."""

    backend = "embedded"
    host = HOST

    def __init__(self, children: Children, data: Path, logs: Path, cache: Cache) -> None:
        self._children = children
        self._data = data
        self._logs = logs
        self._cache = cache
        self._addresses: dict[str, Address] = {}
        self._processes: dict[str, Process] = {}
        self._starts: dict[str, Callable[[], Process]] = {}
        self._ahead: dict[str, tuple[Program, Process]] = {}
        self._ports = Ports()
        self._keepers: frozenset[str] = frozenset()

    def choose_addresses(self, names: Sequence[str], wires: Mapping[str, int]) -> None:
        """Decide where services will listen."""
        for name in names:
            if name not in SERVERS:
                raise LabError(f"no service is called {name!r}", hint=f"the embedded backend has {', '.join(SERVERS)}")
            user = "root" if name == "mysql" else ""
            self._addresses[name] = Address(HOST, self.free_port(), user, token_urlsafe(18), wires.get(name, 0))

    def start_services(self, names: Sequence[str]) -> None:
        """Start real servers side by side and return when each has answered a real operation."""
        self.choose_addresses([name for name in names if name not in self._addresses], NO_WIRES)
        for name in names:
            SERVERS[name]().fetch(self._cache)  # one after the other, and here: Ctrl-C reaches only this thread
        with ThreadPoolExecutor(max_workers=max(len(names), 1)) as pool:
            list(pool.map(self._start_service, names))

    def _start_service(self, name: str) -> None:
        server = SERVERS[name]()
        address = self._addresses[name]
        folder = self._data / name
        folder.mkdir()

        def start() -> Process:
            launch = server.launch(self._cache, folder, address)
            return self._children.spawn(name, launch.argv, env=clean_environment(folder), cwd=folder, log=self.log(name))

        self._starts[name] = start
        self._processes[name] = start()
        await_service(self, name)

    def reach(self, name: str, port: int) -> str:  # noqa: ARG002 - all listen on this machine
        """`host:port` of a service, a peer or a replica."""
        return f"{HOST}:{port}"

    def address(self, service: str) -> Address:
        """Where the kit reaches a service, with the kit's credentials."""
        return self._addresses[service]

    def open(self, lab: Path, app_ports: Sequence[int], keepers: Sequence[str] = ()) -> None:  # noqa: ARG002 - programs run where they lie
        """Note whose files outlive it."""
        self._keepers = frozenset(keepers)

    def refresh(self, submission: Path) -> None:
        """Programs run where they lie."""

    def free_port(self) -> int:
        """A port that nothing else gets until the run ends."""
        return self._ports.take()

    def home(self, name: str) -> str:
        """A folder of the run's temporary one."""
        return str(self._data / name)

    def filled(self, name: str) -> str:
        """Where a program finds its `files`."""
        return str(self._data / name / FILLED)

    def shims(self) -> str:
        """Where a program finds the clock's shim."""
        return str(SHIMS)

    def skew(self, name: str, offset_s: float, within_s: float) -> bool:
        """Shift a replica's clock; False when nothing in it can, or it has ended. Raises MachineError."""
        try:
            return shift(str(self._data / name), offset_s, within_s)
        except TimeoutError as error:
            raise MachineError(f"{name}: {error}") from error

    def start_ahead(self, program: Program, imports: Sequence[str]) -> None:
        """Have a Python program of the app import its libraries, and wait."""
        argv = prestart_argv(self.shims(), str(self._go_file(program.name)), str(program.cwd), imports, program.argv)
        # Not in its folder, which may be another one by the time it goes.
        self._ahead[program.name] = program, self._spawn(replace(program, argv=argv, cwd=self._home_of(program)))

    def start_program(self, program: Program) -> None:
        """Start a program, or let one go that was started ahead; readiness is the caller's business."""
        if program.files:
            write_files(program.files, self._home_of(program) / FILLED)
        self._starts[program.name] = partial(self._spawn, program)
        then, process = self._ahead.pop(program.name, (None, None))
        if process is not None and then == program and process.exit_code is None:
            self._go_file(program.name).touch()
        else:
            if process is not None:
                process.kill()
            process = self._spawn(program)
        self._processes[program.name] = process

    def _spawn(self, program: Program) -> Process:
        home = self._home_of(program)
        kept = {}
        if program.name in self._keepers:
            (home / "data").mkdir(exist_ok=True)
            kept["DATA_DIR"] = str(home / "data")
        env = {**clean_environment(home), **kept, **program.env}
        return self._children.spawn(program.name, program.argv, env=env, cwd=program.cwd, log=self.log(program.name))

    def _home_of(self, program: Program) -> Path:
        home = self._data / program.name
        home.mkdir(exist_ok=True)
        return home

    def _go_file(self, name: str) -> Path:
        return self._data / f"{name}.go"

    def kill(self, name: str) -> None:
        """SIGKILL, and return when it is gone."""
        self._process(name).kill()

    def pause(self, name: str) -> None:
        """SIGSTOP: it stands still, its connections stay open."""
        process = self._process(name)
        process.signal(signal.SIGSTOP)
        # The signal travels by the guard: wait until the kernel says that the process stands, so that the caller's next time stamp is later.
        # It never says so of one that has just begun to start another (vfork(2)), which stands before it could run.
        deadline = time.monotonic() + STANDS_WITHIN_S
        while process.exit_code is None and time.monotonic() < deadline:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just died, and we are not yet told
                if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
                    break
            process.wait(0.001)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._process(name).signal(signal.SIGCONT)

    def threads(self, name: str) -> int:
        """How many threads it and all below it have now; 0 when it has ended."""
        return threads_of(self.pid(name))

    def cpu_s(self, name: str) -> float | None:
        """Seconds of CPU that it and all below it have used since its start, in steps of 10 ms; None when it has ended."""
        return cpu_of(self.pid(name))

    def quit(self, name: str) -> None:
        """SIGQUIT, and SIGKILL if it still runs after that."""
        process = self._process(name)
        process.signal(signal.SIGQUIT)
        if process.wait(QUIT_WITHIN_S) is None:
            process.kill()

    def restart(self, name: str) -> None:
        """Start it anew with the same data, ports and environment; a service answers again when this returns."""
        if self.exit_code(name) is None:
            self.kill(name)
        self._processes[name] = self._starts[name]()
        if name in self._addresses:
            await_service(self, name)

    def pid(self, name: str) -> int:
        """The process id now."""
        return self._process(name).pid

    def exit_code(self, name: str) -> int | None:
        """None while it runs; negative for a signal."""
        return self._process(name).exit_code

    def log(self, name: str) -> Path:
        """The file that holds what it printed."""
        return self._logs / f"{name}.log"

    def stop(self) -> None:
        """End everything and remove what was temporary."""
        self._children.close()
        self._ports.release()

    def _process(self, name: str) -> Process:
        if name not in self._processes:
            raise LabError(f"nothing called {name!r} runs here", hint=f"there are {', '.join(sorted(self._processes))}")
        return self._processes[name]
