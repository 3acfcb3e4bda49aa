"""What a backend must offer: the seam between a run and where its servers, peers and replicas live."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

QUIT_WITHIN_S = 10.0
NO_WIRES: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the kit's own credentials for it (never the app's)."""

    host: str
    port: int
    user: str = ""
    password: str = ""
    advertised: int = 0  # the port that the server tells its clients, where that is another


@dataclass(frozen=True)
class Program:
    """A program to start as it is: a process of the app, or a peer."""

    name: str
    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=dict)
    role: Literal["app", "peer"] = "app"
    public: Sequence[str] = ("PORT",)  # of a peer's ports those that the app may reach
    links: Sequence[int] = ()  # further ports of a peer, which the app alone reaches
    files: Mapping[str, tuple[int, bytes]] = field(default_factory=dict)  # of its own, with their modes, below `Stack.filled`


class Stack(Protocol):
    """One run's processes. Names are those of the run: `redis`, `catalog`, `app-1`.

    The app finds everything on ports of 127.0.0.1, the kit on the same ports of `host`.
    """

    backend: str
    host: str

    def open(self, lab: Path, app_ports: Sequence[int], keepers: Sequence[str] = ()) -> None:
        """Called once, first: which lab it is, and on which ports the app's processes will listen.

        `keepers`: the programs that find a folder of their own at DATA_DIR, whose files outlive them until the run ends.
        """

    def refresh(self, submission: Path) -> None:
        """Called right before the app starts: the submission may have changed since `open`."""

    def choose_addresses(self, names: Sequence[str], wires: Mapping[str, int]) -> None:
        """Decide where services will listen. `wires`: service -> the only port at which the app finds it. Raises LabError for an unknown one."""

    def start_services(self, names: Sequence[str]) -> None:
        """Start real servers and return when each has answered a real operation. Chooses addresses where none are chosen."""

    def reach(self, name: str, port: int) -> str:
        """`host:port` of a service, a peer or a replica as a peer must call it; `port` is the one that the kit knows."""

    def address(self, service: str) -> Address:
        """Where the kit reaches a service, with the kit's credentials."""

    def free_port(self) -> int:
        """A port for one program of this run; the OS chooses it."""

    def start_ahead(self, program: Program, imports: Sequence[str]) -> None:
        """Have a Python program of the app import its libraries, and wait: `start_program` lets an equal one go, and replaces another."""

    def start_program(self, program: Program) -> None:
        """Start a program; readiness is the caller's business."""

    def home(self, name: str) -> str:
        """The one folder in which a program of the app can write, as the program sees it."""

    def filled(self, name: str) -> str:
        """Where a program finds its `files`."""

    def shims(self) -> str:
        """Where a program finds `runner/shims`."""

    def skew(self, name: str, offset_s: float, within_s: float) -> bool:
        """Shift a program's wall clock; False when its runtime cannot be shifted, or it has ended. Raises MachineError when it fails."""

    def kill(self, name: str) -> None:
        """SIGKILL, and return when it is gone."""

    def pause(self, name: str) -> None:
        """Stop it where it stands; its connections stay open. What has ended stays as it is."""

    def resume(self, name: str) -> None:
        """Go on after `pause`; nothing happens when it was not paused, or has ended."""

    def threads(self, name: str) -> int:
        """How many threads of the operating system it and all below it have now, by the kernel; 0 when it has ended."""

    def cpu_s(self, name: str) -> float | None:
        """Seconds of CPU, user and system, that it and all below it have used since its start, by the kernel; None when it has ended."""

    def quit(self, name: str) -> None:
        """SIGQUIT, and SIGKILL if that has not ended it within `QUIT_WITHIN_S`; returns when it is gone."""

    def restart(self, name: str) -> None:
        """Start it anew with the same data, ports and environment."""

    def pid(self, name: str) -> int:
        """The process id now; 0 when it is not known to this machine's kernel."""

    def exit_code(self, name: str) -> int | None:
        """None while it runs; negative for a signal."""

    def log(self, name: str) -> Path:
        """The file that holds what it printed."""

    def stop(self) -> None:
        """End everything and remove what was temporary. Safe to call twice."""


def tail_of(log: Path, lines: int = 12) -> str:
    """The last lines of a log as they stand under an error message, and its path."""
    try:
        text = log.read_bytes()[-16384:].decode(errors="replace").splitlines()[-lines:]
    except OSError:
        text = []
    return "\n".join([*(f"  | {line}" for line in text or ["(it printed nothing)"]), f"  log: {log}"])
