"""What a container of a run may do: the limits of a stranger's process, of a peer's and of the gate's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from runner.images import image_of, tag_of
from runner.stack.gate import SYSCTLS

if TYPE_CHECKING:
    import docker

USER = "10001:10001"  # `app` in the runtime image
SUBMISSION, LAB = "/srv/app", "/srv/kit"  # where the two volumes are
DATA = "/srv/data"  # where a replica's own is, if it has one
HOME = "/tmp"  # noqa: S108 - in the container, a file system of its own
BASE_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": HOME,
    "TMPDIR": HOME,
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
HOME_SIZE = "64m"
# In memory and of a fixed size; there as long as a container that has it is: the gate has them all.
DATA_OPTIONS = {"type": "tmpfs", "device": "tmpfs", "o": f"size=32m,mode=0700,uid={USER.partition(':')[0]},nosuid,nodev"}
PROCESSES = 256
LOG = {"max-size": "8m", "max-file": "2"}
ONE_CORE = 1_000_000_000
MEMORY = {"app": "512m", "peer": "512m", "gate": "64m"}


@dataclass(frozen=True)
class Container:
    """One container about to be made, of the runtime image or, an app's, of the one that has its program.

    `gate` is the id of the one whose network an app shares.
    """

    run: str
    name: str
    role: Literal["app", "peer", "gate"]
    argv: Sequence[str]
    labels: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = HOME
    ports: Sequence[int] = ()
    host: str = ""
    gate: str = ""
    keepers: Sequence[str] = ()  # whose data it sees

    def create(self, api: "docker.APIClient") -> str:
        """Make it, not started, and return its id: nothing writable but its home, no capability, and no root but in the gate."""
        endpoint: Any = {f"{self.run}_default": api.create_endpoint_config(aliases=[self.name])}
        made = api.create_container(
            tag_of(image_of(self.argv) if self.role == "app" else "runtime"),
            list(self.argv),
            name=f"{self.run}-{self.name}",
            user="0" if self.role == "gate" else USER,
            working_dir=self.cwd,
            environment={**BASE_ENV, **self.env},
            ports=list(self.ports) or None,
            labels={**self.labels, "com.docker.compose.service": self.name, "com.docker.compose.container-number": "1"},
            host_config=self._host_config(api),
            networking_config=None if self.role == "app" else api.create_networking_config(endpoint),
        )
        return str(made["Id"])

    def _host_config(self, api: "docker.APIClient") -> Any:
        from docker.types import LogConfig

        is_gate = self.role == "gate"
        return api.create_host_config(
            binds=self._volumes(),
            network_mode=f"container:{self.gate}" if self.role == "app" else f"{self.run}_default",
            port_bindings={port: (self.host, port) for port in self.ports} or None,
            read_only=not is_gate,
            tmpfs={HOME: f"size={HOME_SIZE},mode=1777,nosuid,nodev"},
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN"] if is_gate else None,
            security_opt=["no-new-privileges:true"],
            sysctls=SYSCTLS if is_gate else None,
            mem_limit=MEMORY[self.role],
            memswap_limit=MEMORY[self.role],
            pids_limit=PROCESSES,
            nano_cpus=ONE_CORE if self.role == "app" else None,
            shm_size="16m",
            log_config=LogConfig(type=LogConfig.types.JSON, config=LOG),
        )

    def _volumes(self) -> dict[str, Mapping[str, str]]:
        """An app sees the submission and its own data, a peer the lab and the kit; the gate, in which no stranger's code runs, holds them all."""
        app, kit = f"{self.run}-app", f"{self.run}-kit"
        if self.role == "gate":
            held = {data_volume(self.run, name): {"bind": f"{DATA}/{name}", "mode": "rw"} for name in self.keepers}
            return {app: {"bind": SUBMISSION, "mode": "rw"}, kit: {"bind": LAB, "mode": "rw"}, **held}
        own = {data_volume(self.run, name): {"bind": DATA, "mode": "rw"} for name in self.keepers}
        return {app: {"bind": SUBMISSION, "mode": "ro"}, **own} if self.role == "app" else {kit: {"bind": LAB, "mode": "ro"}}


def data_volume(run: str, name: str) -> str:
    """The name of a replica's own volume."""
    return f"{run}-data-{name}"
