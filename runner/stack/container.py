"""What a container of a run may do: the limits of a stranger's process, of a peer's and of the gate's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from runner.images import tag_of
from runner.stack.gate import SYSCTLS

if TYPE_CHECKING:
    import docker

USER = "10001:10001"  # `app` in the runtime image
SUBMISSION, LAB = "/srv/app", "/srv/kit"  # where the two volumes are
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
PROCESSES = 256
LOG = {"max-size": "8m", "max-file": "2"}
ONE_CORE = 1_000_000_000
MEMORY = {"app": "512m", "peer": "512m", "gate": "64m"}


@dataclass(frozen=True)
class Container:
    """One container about to be made, of the runtime image. `gate` is the id of the one whose network an app shares."""

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

    def create(self, api: "docker.APIClient") -> str:
        """Make it, not started, and return its id: nothing writable but its home, no capability, and no root but in the gate."""
        endpoint: Any = {f"{self.run}_default": api.create_endpoint_config(aliases=[self.name])}
        made = api.create_container(
            tag_of("runtime"),
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
        """An app sees the submission, a peer the lab and the kit; the gate, in which no stranger's code runs, carries the files in."""
        app, kit = f"{self.run}-app", f"{self.run}-kit"
        if self.role == "gate":
            return {app: {"bind": SUBMISSION, "mode": "rw"}, kit: {"bind": LAB, "mode": "rw"}}
        return {app: {"bind": SUBMISSION, "mode": "ro"}} if self.role == "app" else {kit: {"bind": LAB, "mode": "ro"}}
