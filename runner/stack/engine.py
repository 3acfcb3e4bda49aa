"""The Docker engine: where the docker command would look for one, whether it answers, and what to do when it does not."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import MachineError
from runner.stack.ports import HOST

if TYPE_CHECKING:
    import docker

DEFAULT_HOST = "unix:///var/run/docker.sock"
OLDEST_API = (1, 41)  # engine 20.10, the oldest that this kit was tried with
ANSWER_WITHIN_S = 10.0
EMBEDDED = "BACKEND=embedded needs no Docker"
START = f"start it (Docker Desktop, or `sudo systemctl start docker`), or install one (`sudo sh infra/engine.sh` on Debian or Ubuntu); {EMBEDDED}"
ALLOW = f"add yourself to the group docker (`sudo usermod -aG docker $USER`) and log in anew; {EMBEDDED}"
REMOTE = f"look at DOCKER_HOST and at `docker context ls`, or use the engine of this machine; {EMBEDDED}"


@dataclass(frozen=True)
class Endpoint:
    """Where an engine listens, as the docker command writes it, and the name of the context that says so."""

    host: str
    context: str = "default"
    tls: Any = None

    @property
    def socket(self) -> Path | None:
        """The file of a Unix socket, if it is one."""
        return Path(self.host.removeprefix("unix://")) if self.host.startswith("unix://") else None

    def __str__(self) -> str:
        return self.host if self.context == "default" else f"{self.host} (docker context {self.context})"


def context_name() -> str:
    """The context that the docker command would take: DOCKER_HOST overrides any, DOCKER_CONTEXT overrides the chosen one."""
    if os.environ.get("DOCKER_HOST"):
        return "default"
    if named := os.environ.get("DOCKER_CONTEXT"):
        return named
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        settings = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return "default"
    return settings.get("currentContext") or "default" if isinstance(settings, dict) else "default"


def is_engine_near() -> bool:
    """Whether it is worth asking: an engine is named, or its socket is there. Takes no part of the SDK, and under 1 ms."""
    return bool(os.environ.get("DOCKER_HOST")) or context_name() != "default" or Path(DEFAULT_HOST.removeprefix("unix://")).exists()


def find_endpoint() -> Endpoint:
    """Where the docker command would look. Raises MachineError when the context is not known."""
    name = context_name()
    if name == "default":
        return Endpoint(os.environ.get("DOCKER_HOST") or DEFAULT_HOST)
    from docker.context import ContextAPI

    context: Any = ContextAPI.get_context(name)  # the SDK's types deny that it may be None
    if context is None or not context.Host:
        raise MachineError(f"there is no docker context {name!r}", "`docker context ls` shows those there are; `docker context use NAME` takes one")
    return Endpoint(context.Host, name, context.TLSConfig)


def connect_engine(timeout_s: float = ANSWER_WITHIN_S) -> "docker.DockerClient":
    """A client of the engine that has answered once; `timeout_s` holds for that and for each later request. Raises MachineError."""
    endpoint = find_endpoint()
    if endpoint.socket:
        knock(endpoint, endpoint.socket, timeout_s)
    import docker
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    try:
        settings: dict[str, Any] = {**kwargs_from_env()} if endpoint.context == "default" else {"tls": endpoint.tls or False}
        settings |= {"base_url": endpoint.host, "timeout": timeout_s, "use_ssh_client": endpoint.host.startswith("ssh://")}
        client = docker.DockerClient(**settings, version="auto")
    except (DockerException, NameError) as error:
        raise explain(endpoint, error, timeout_s) from error
    api = str(client.api.api_version)
    if tuple(map(int, api.split("."))) < OLDEST_API:
        client.close()
        oldest = ".".join(map(str, OLDEST_API))
        raise MachineError(
            f"the Docker engine at {endpoint} is too old: it speaks API {api}, expected {oldest} or newer",
            hint=f"update it to Docker 20.10 or newer; {EMBEDDED}",
        )
    return client


def knock(endpoint: Endpoint, path: Path, timeout_s: float) -> None:
    """Connect once to the engine's socket: the system's error is plain, the SDK's is wrapped. Raises MachineError."""
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.settimeout(timeout_s)
        try:
            knocking.connect(str(path))
        except OSError as error:
            raise explain(endpoint, error, timeout_s) from error


def explain(endpoint: Endpoint, error: Exception, timeout_s: float) -> MachineError:
    """Why there is no talking to the engine."""
    causes = list(causes_of(error))
    if any(isinstance(cause, PermissionError) for cause in causes):
        return MachineError(f"you may not use the Docker engine at {endpoint}: permission denied", ALLOW)
    if endpoint.host.startswith("ssh://") and any(isinstance(cause, NameError) for cause in causes):
        return MachineError(f"the Docker engine at {endpoint} cannot be asked: the SDK has no SSH", f"run .venv/bin/pip install paramiko; {EMBEDDED}")
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        seen = "there is no such socket"
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        seen = "nobody listens there"
    elif any(isinstance(cause, TimeoutError) for cause in causes) or "timed out" in str(error).lower():
        seen = f"not within {timeout_s:g} s"
    else:
        seen = str(causes[-1])
    return MachineError(f"no Docker engine answers at {endpoint}: {seen}", START if endpoint.socket else REMOTE)


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, the first cause last."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def compose_command() -> list[str]:
    """How Compose is called. Raises MachineError when the docker command or its plugin is missing."""
    if shutil.which("docker") is None:
        raise MachineError("there is no docker command on PATH", f"install Docker's command line with Compose; {EMBEDDED}")
    command = ["docker", "compose"]
    done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        hint = f"install it: `sudo sh infra/engine.sh` on Debian or Ubuntu, else https://docs.docker.com/compose/install; {EMBEDDED}"
        raise MachineError(f"`docker compose` does not run: {(done.stderr.strip().splitlines() or ['it said nothing'])[0]}", hint)
    return command


def engine_address() -> str:
    """Where the engine publishes ports and we find them: this machine's loopback, or LABS_ENGINE_ADDRESS for an engine elsewhere."""
    name = os.environ.get("LABS_ENGINE_ADDRESS") or HOST
    try:
        return socket.gethostbyname(name)
    except OSError as error:
        raise MachineError(f"LABS_ENGINE_ADDRESS={name} is no address: {error}", hint="it is the address of the engine's machine") from error


def engine_environment() -> dict[str, str]:
    """What the docker command and the SDK need of our environment to find the engine."""
    named = ("PATH", "HOME", "SSH_AUTH_SOCK")  # the last for an engine at ssh://
    return {key: value for key, value in os.environ.items() if key in named or key.startswith("DOCKER_")}
