"""The Docker backend: services by Compose, peers and replicas as containers of their own, the app behind a gate."""

import contextlib
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.children import Children
from runner.errors import AppError, LabError, MachineError
from runner.images import image_env, image_of
from runner.owner import owner_of
from runner.prestart import prestart_argv
from runner.services import await_service
from runner.stack import NO_WIRES, QUIT_WITHIN_S, Address, Program, tail_of
from runner.stack.cargo import TooLargeError, pack, pack_files
from runner.stack.container import DATA, DATA_OPTIONS, HOME, LAB, SUBMISSION, USER, Container, data_volume
from runner.stack.cpu import cpu_of
from runner.stack.engine import compose_command, engine_address, engine_environment
from runner.stack.gate import CLOSED, Forward, rules
from runner.stack.ports import HOST, Ports
from runner.stack.sweep import OWNER_LABEL, RUN_LABEL, sweep

if TYPE_CHECKING:
    import docker

ROOT = Path(__file__).parent.parent.parent
COMPOSE_FILE = ROOT / "infra" / "docker-compose.yml"
INNER_PORTS = {"redis": 6379, "mysql": 3306, "kafka": 9092}
GATE = "gate"
FILLED, GO = "filled", "go"  # folders of the app's volume
NFT = "/usr/sbin/nft"
DONE_WITHIN_S = 60.0
NO_SUCH_PROGRAM = (126, 127)  # the exit codes of an `exec` that found none
FROZEN_WITHIN_S = 5.0
TOLD_WITHIN_S = 0.1  # the event of an end may come after the refusal of what was asked of the ended
PROC = Path("/proc")
NEVER = "0001-01-02"  # the engine's time of what has not happened is earlier


class DockerStack:
    """One run's containers, network and volumes (implements `Stack`)."""

    backend = "docker"

    def __init__(self, client: "docker.DockerClient", children: Children, logs: Path) -> None:
        self._client = client
        self._api = client.api
        self._children = children
        self._logs = logs
        self.host = engine_address()
        self.run = f"labs-{secrets.token_hex(4)}"
        self._owner = owner_of(children.guard_pid)
        self._labels = {RUN_LABEL: self.run, OWNER_LABEL: self._owner, "com.docker.compose.project": self.run}
        self._ports = Ports()
        self._addresses: dict[str, Address] = {}
        self._forwards: dict[str, list[tuple[int, int]]] = {}  # container -> (port as the app sees it, port in the container)
        self._app_ports: list[int] = []
        self._keepers: tuple[str, ...] = ()
        self._ids: dict[str, str] = {}
        self._exit_codes: dict[str, int] = {}
        self._changed = threading.Condition()
        self._paused: set[str] = set()
        self._pool = ThreadPoolExecutor(max_workers=12, thread_name_prefix="docker")
        self._under_way: list[Future[Any]] = []
        self._ahead: dict[str, tuple[Program, Future[None]]] = {}
        self._gate: Future[None] | None = None
        self._is_open = False
        self._is_cut_off = False
        self._is_stopped = False
        self._events: Any = None

    # The layout of a run.

    def open(self, lab: Path, app_ports: Sequence[int], keepers: Sequence[str] = ()) -> None:
        """Make the run's network and its gate; from here on everything is removed, whatever ends us."""
        self._children.at_end([sys.executable, "-m", "runner.stack.sweep", self.run], {**engine_environment(), "PYTHONPATH": str(ROOT)})
        self._events = self._api.events(filters={"label": f"{RUN_LABEL}={self.run}", "event": "die"}, decode=True)
        threading.Thread(target=self._listen, name="docker-events", daemon=True).start()
        self._app_ports = list(app_ports)
        self._keepers = tuple(keepers)
        with self._making():
            for volume in ("app", "kit"):
                self._api.create_volume(f"{self.run}-{volume}", labels=self._labels)
            for name in keepers:
                self._api.create_volume(data_volume(self.run, name), driver="local", driver_opts=DATA_OPTIONS, labels=self._labels)
            # Compose finds it by its labels and takes it for its own: peers and gate need not wait for Compose.
            self._api.create_network(
                f"{self.run}_default",
                labels={**self._labels, "com.docker.compose.network": "default"},
                options={"com.docker.network.bridge.enable_ip_masquerade": "false"},
                check_duplicate=True,
            )
        self._gate = self._pool.submit(self._start_gate, lab)

    @contextlib.contextmanager
    def _making(self) -> Iterator[None]:
        """An interrupt in here leaves a request under way, which the engine goes on with."""
        self._is_cut_off = True
        yield
        self._is_cut_off = False

    def refresh(self, submission: Path) -> None:
        """Copy the submission in. Raises AppError when it is too large."""
        try:
            app = pack({"submission": submission})
        except (OSError, TooLargeError) as error:
            raise AppError(f"the submission cannot be copied: {error}", hint="it should hold the app's code and nothing else") from error
        assert self._gate is not None
        self._gate.result()
        self._api.put_archive(self._ids[GATE], SUBMISSION, app)

    def _start_gate(self, lab: Path) -> None:
        closed = ["sh", "-c", f"{NFT} '{CLOSED}' && exec sleep infinity"]
        self._create(Container(self.run, GATE, "gate", closed, self._labels, ports=self._app_ports, host=self.host, keepers=self._keepers))
        self._api.put_archive(self._ids[GATE], LAB, pack({"lab": lab, "runner": ROOT / "runner"}))
        self._api.put_archive(self._ids[GATE], SUBMISSION, pack({"shims": ROOT / "runner" / "shims"}))
        self._api.start(self._ids[GATE])

    def _create(self, container: Container) -> None:
        self._ids[container.name] = container.create(self._api)

    def choose_addresses(self, names: Sequence[str], wires: Mapping[str, int]) -> None:
        """Decide at which ports of this machine services will be found."""
        for name in names:
            if name not in INNER_PORTS:
                raise LabError(f"no service is called {name!r}", hint=f"the docker backend has {', '.join(INNER_PORTS)}")
            user, password = "root" if name == "mysql" else "", secrets.token_urlsafe(18)
            self._addresses[name] = Address(self.host, self.free_port(), user, password, wires.get(name, 0))
            if name not in wires:
                self._forwards[name] = [(self._addresses[name].port, INNER_PORTS[name])]

    def start_services(self, names: Sequence[str]) -> None:
        """Start real servers side by side and return when each has answered a real operation."""
        self.choose_addresses([name for name in names if name not in self._addresses], NO_WIRES)
        if names:
            self._compose(names)
        for container in self._api.containers(filters={"label": f"{RUN_LABEL}={self.run}"}):
            self._ids[container["Labels"]["com.docker.compose.service"]] = container["Id"]
        list(self._pool.map(lambda name: await_service(self, name), names))
        self._open_gate()  # here, where nobody waits for the app yet

    def _compose(self, names: Sequence[str]) -> None:
        env = {
            **engine_environment(),
            **image_env(names),
            "LABS_RUN": self.run,
            "LABS_OWNER": self._owner,
            "LABS_HEALTH_INTERVAL": "1h",
            "LABS_MYSQL_TLS": "",
            "LABS_PUBLISH": self.host,
        }
        for name in names:
            address = self._addresses[name]
            env |= {f"LABS_{name.upper()}_PORT": str(address.port), f"LABS_{name.upper()}_PASSWORD": address.password}
            if name == "kafka":
                env["LABS_KAFKA_ADVERTISED"] = f"{self.host}:{address.advertised or address.port}"
        profiles = [part for name in names for part in ("--profile", name)]
        argv = [*compose_command(), "-f", str(COMPOSE_FILE), "-p", self.run, "--progress", "plain", *profiles]
        # By the guard, so that it does not outlive us and start what nobody removes.
        argv += ["up", "-d", "--no-build", "--pull", "never"]
        with self._making():
            process = self._children.spawn("compose", argv, env=env, cwd=ROOT, log=self.log("compose"))
            code = process.wait(DONE_WITHIN_S)
            if code != 0:
                what = f"did not end within {DONE_WITHIN_S:g} s" if code is None else f"ended with exit code {code}"
                raise MachineError(f"`docker compose up` {what}\n{tail_of(self._logs / 'compose.log')}", hint="`make images` prepares what it needs")

    def start_ahead(self, program: Program, imports: Sequence[str]) -> None:
        """Have a Python program of the app import its libraries in its container, and wait."""
        self._ahead[program.name] = program, self._pool.submit(self._start_ahead, program, imports)

    def _start_ahead(self, program: Program, imports: Sequence[str]) -> None:
        assert self._gate is not None
        self._gate.result()
        argv = prestart_argv(self.shims(), f"{SUBMISSION}/{GO}/{program.name}", f"{SUBMISSION}/submission", imports, program.argv)
        # Not in its folder, which is not there yet.
        self._create(replace(self._container_of(program), argv=argv, cwd=HOME))
        self._api.start(self._ids[program.name])

    def start_program(self, program: Program) -> None:
        """Start a peer or a replica in a container, or let one go that was started ahead; readiness is the caller's business."""
        if program.role == "peer":
            self._forwards[program.name] = [(port, port) for port in (*(program.ports[name] for name in program.public), *program.links)]
            self._is_open = False  # not to it
        else:
            self._open_gate()
        then, started = self._ahead.pop(program.name, (None, None))
        self._under_way.append(self._pool.submit(self._start_program, program, started, is_same=then == program))

    def _start_program(self, program: Program, started: Future[None] | None, *, is_same: bool) -> None:
        from docker.errors import APIError

        assert self._gate is not None
        self._gate.result()
        try:
            if program.files:
                self._api.put_archive(self._ids[GATE], SUBMISSION, pack_files(program.files, f"{FILLED}/{program.name}"))
            if started is not None:
                if started.exception() is None and is_same and program.name not in self._exit_codes:
                    self._api.put_archive(self._ids[GATE], SUBMISSION, pack_files({program.name: (0o644, b"")}, GO))
                    return
                self._remove(program.name)
            self._create(self._container_of(program))
            self._api.start(self._ids[program.name])
        except APIError as error:
            if "executable file not found" in str(error) or "no such file" in str(error):
                raise AppError(
                    f"{program.name} could not be started: {error.explanation}", hint=f"the command was: {' '.join(program.argv)}"
                ) from error
            hint = f"`labs images {image_of(program.argv)}` makes it" if "No such image" in str(error) else ""
            raise MachineError(f"{program.name} could not be started: {error.explanation}", hint) from error

    def _remove(self, name: str) -> None:
        """Remove what `_start_ahead` has made, as far as it came."""
        if (made := self._ids.pop(name, None)) is None:
            return
        was_started = self._api.inspect_container(made)["State"]["StartedAt"] > NEVER
        self._api.remove_container(made, force=True)
        if was_started:
            self._await_end(name)
        with self._changed:
            self._exit_codes.pop(name, None)

    def _container_of(self, program: Program) -> Container:
        if program.role == "app":
            gate = self._ids[GATE]
            keepers = tuple(name for name in self._keepers if name == program.name)
            env = {"DATA_DIR": DATA, **program.env} if keepers else program.env
            return Container(self.run, program.name, "app", program.argv, self._labels, env, f"{SUBMISSION}/submission", gate=gate, keepers=keepers)
        env = {**program.env, "HOST": "0.0.0.0", "PYTHONPATH": LAB}  # noqa: S104 - in its container
        ports = list(program.ports.values())
        return Container(self.run, program.name, "peer", program.argv, self._labels, env, f"{LAB}/lab", ports, self.host)

    def _open_gate(self) -> None:
        """Let the app reach services and peers, which all have addresses by now, and nothing else."""
        if self._is_open:
            return
        assert self._gate is not None
        self._gate.result()
        self._settle()
        forwards = [Forward(port, self._ip(name), to_port) for name, pairs in self._forwards.items() for port, to_port in pairs]
        order = self._api.exec_create(self._ids[GATE], [NFT, rules({HOST, self.host}, forwards, self._app_ports)], user="0")
        said = self._api.exec_start(order["Id"])
        if (code := self._api.exec_inspect(order["Id"])["ExitCode"]) != 0:
            raise MachineError(f"the gate could not be opened (nft: exit code {code}): {said.decode(errors='replace').strip()}")
        self._is_open = True

    def _ip(self, name: str) -> str:
        networks = self._api.inspect_container(self._ids[name])["NetworkSettings"]["Networks"]
        return str(networks[f"{self.run}_default"]["IPAddress"])

    def _settle(self) -> None:
        """Return when every start under way is done. Raises what went wrong."""
        under_way, self._under_way = self._under_way, []
        for future in under_way:
            future.result()

    # What a run asks of any stack.

    def reach(self, name: str, port: int) -> str:
        """`host:port` of a service, a peer or a replica on the run's network."""
        return f"{GATE}:{port}" if port in self._app_ports else f"{name}:{INNER_PORTS.get(name, port)}"

    def address(self, service: str) -> Address:
        """Where the kit reaches a service, with the kit's credentials."""
        return self._addresses[service]

    def free_port(self) -> int:
        """A port of this machine and, by the gate, of the app's loopback."""
        return self._ports.take()

    def home(self, name: str) -> str:  # noqa: ARG002 - each container has its own
        """A file system in memory."""
        return HOME

    def filled(self, name: str) -> str:
        """Where a program finds its `files`: in the app's volume, which it can only read."""
        return f"{SUBMISSION}/{FILLED}/{name}"

    def shims(self) -> str:
        """Where a program finds the clock's shim."""
        return f"{SUBMISSION}/shims"

    def skew(self, name: str, offset_s: float, within_s: float) -> bool:
        """Shift a replica's clock; False when nothing in it can, or it has ended. Raises MachineError."""
        from docker.errors import APIError

        try:
            order = self._api.exec_create(self._id(name), ["python", "-I", f"{self.shims()}/shift.py", HOME, str(offset_s), str(within_s)], user=USER)
            said = self._api.exec_start(order["Id"])
            code = self._api.exec_inspect(order["Id"])["ExitCode"]
        except APIError as error:
            if self._has_ended(name):
                return False
            raise MachineError(f"the clock of {name} could not be shifted: {error.explanation}") from error
        if code in NO_SUCH_PROGRAM:  # an image without Python, so the app is in another language
            return False
        if code not in (0, 1) or b"Error" in said:
            raise MachineError(f"the clock of {name} could not be shifted: {said.decode(errors='replace').strip()[-300:]}")
        return bool(code == 0)

    def kill(self, name: str) -> None:
        """SIGKILL, and return when it is gone."""
        from docker.errors import APIError

        if name in self._paused:
            self.resume(name)
        with contextlib.suppress(APIError):  # it has ended by itself
            self._api.kill(self._id(name))
        self._await_end(name)

    def pause(self, name: str) -> None:
        """Freeze it; its connections stay open. What has ended stays as it is. Raises MachineError."""
        from docker.errors import APIError

        deadline = time.monotonic() + FROZEN_WITHIN_S
        while True:
            try:
                self._api.pause(self._id(name))
                break
            except APIError as error:
                # With cgroup v1 the kernel may not freeze many busy threads at the first try; runc thaws it then, and says so.
                if "unable to freeze" in str(error) and time.monotonic() < deadline:
                    continue
                if self._has_ended(name):
                    return
                raise MachineError(f"{name} could not be paused: {error.explanation}") from error
        self._paused.add(name)

    def resume(self, name: str) -> None:
        """Thaw it, if it was paused and has not ended since. Raises MachineError."""
        from docker.errors import APIError

        made = self._id(name)
        if name not in self._paused:
            return
        try:
            self._api.unpause(made)
        except APIError as error:
            if not self._has_ended(name):
                raise MachineError(f"{name} could not be resumed: {error.explanation}") from error
        self._paused.discard(name)

    def threads(self, name: str) -> int:
        """How many threads its container has now, as `ps` on the engine's machine tells; 0 when it has ended."""
        from docker.errors import APIError

        try:
            listed = self._api.top(self._id(name), ps_args="-o pid,nlwp")
        except APIError:
            if self.exit_code(name) is None:
                raise
            return 0
        return sum(int(line[listed["Titles"].index("NLWP")]) for line in listed["Processes"])

    def cpu_s(self, name: str) -> float | None:
        """Seconds of CPU that it and all below it have used since its start; None when it has ended."""
        if pid := self.pid(name):
            return cpu_of(pid)
        # Of another machine the engine tells. Not `one_shot`: that may be what it saw a second ago. This takes two seconds, and is of now.
        usage = self._api.stats(self._id(name), stream=False)["cpu_stats"]["cpu_usage"]["total_usage"]
        return usage / 1e9 if usage and self.exit_code(name) is None else None  # 0 when its end has not been told yet

    def quit(self, name: str) -> None:
        """SIGQUIT, and SIGKILL if it still runs after that."""
        from docker.errors import APIError

        with contextlib.suppress(APIError):  # it has ended by itself
            self._api.kill(self._id(name), signal="SIGQUIT")
        with self._changed:
            has_ended = self._changed.wait_for(lambda: name in self._exit_codes, QUIT_WITHIN_S)
        if not has_ended:
            self.kill(name)

    def restart(self, name: str) -> None:
        """Start it anew with the same data, ports and environment; a service answers again when this returns."""
        if self.exit_code(name) is None:
            self.kill(name)
        with self._changed:
            self._exit_codes.pop(name, None)
        self._api.start(self._id(name))
        if name in self._forwards:
            self._is_open = False  # the engine may have given it another address
            self._open_gate()
        if name in self._addresses:
            await_service(self, name)

    def pid(self, name: str) -> int:
        """The process id; 0 when it is one of another machine, of which this one's kernel knows nothing."""
        made = self._id(name)
        pid = int(self._api.inspect_container(made)["State"]["Pid"])
        try:
            # Whatever the driver makes of it, a container's cgroup bears its id: /docker/<id>, or docker-<id>.scope in some slice.
            return pid if made in (PROC / str(pid) / "cgroup").read_text() else 0
        except OSError:
            return 0

    def exit_code(self, name: str) -> int | None:
        """None while it runs; negative for a signal."""
        self._settle()
        return self._exit_codes.get(name)

    def log(self, name: str) -> Path:
        """The file that holds what it has printed until now."""
        path = self._logs / f"{name}.log"
        if name in self._ids and not self._is_stopped:
            with contextlib.suppress(Exception):  # the log of a container is there to explain another error
                path.write_bytes(self._api.logs(self._ids[name], stdout=True, stderr=True))
        return path

    def stop(self) -> None:
        """Save the logs and remove everything. Safe to call twice, and after a start that failed."""
        if self._is_stopped:
            return
        for future in [*self._under_way, *(started for _, started in self._ahead.values())]:
            future.exception()
        if self._gate is not None:
            self._gate.exception()
        with contextlib.suppress(MachineError):
            list(self._pool.map(self.log, list(self._ids)))
        self._is_stopped = True
        if self._events is not None:
            with contextlib.suppress(Exception):  # over ssh:// the SDK finds no socket to close
                self._events.close()
        is_swept = False
        try:
            if not self._is_cut_off:
                with contextlib.suppress(OSError):  # the engine does not answer in time: the guard tries it once more
                    sweep(self._client, self.run)
                    is_swept = True
        finally:
            self._pool.shutdown()
            self._children.close(is_swept=is_swept)  # else the guard first ends Compose, and waits for what may still come
            self._ports.release()
            self._client.close()

    def _id(self, name: str) -> str:
        self._settle()
        if name not in self._ids:
            raise LabError(f"nothing called {name!r} runs here", hint=f"there are {', '.join(sorted(self._ids))}")
        return self._ids[name]

    def _has_ended(self, name: str) -> bool:
        """Whether it has, as far as the engine has told by now, or tells at once."""
        with self._changed:
            return self._changed.wait_for(lambda: name in self._exit_codes, TOLD_WITHIN_S)

    def _await_end(self, name: str) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: name in self._exit_codes, DONE_WITHIN_S):
                raise MachineError(f"{name} did not end within {DONE_WITHIN_S:g} s of SIGKILL")

    def _listen(self) -> None:
        """Note every end of a container, as the engine tells it."""
        with contextlib.suppress(Exception):  # the stream is cut when we stop
            for event in self._events:
                attributes = event["Actor"]["Attributes"]
                code = int(attributes["exitCode"])
                with self._changed:
                    self._exit_codes[attributes["com.docker.compose.service"]] = 128 - code if code > 128 else code
                    self._changed.notify_all()
