"""What images are built on: an official image pulled, or where no registry is in reach, a minimal Debian made here."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.errors import MachineError
from runner.image_build import SAY_EVERY_S, Say, build, run_logged, work_folder
from runner.recipe import FOLDER, SUITE, Recipe
from runner.stack.engine import connect_engine

if TYPE_CHECKING:
    import docker

REPOSITORY = "backend-labs/base"
MIRROR = "LABS_DEBIAN_MIRROR"
REGISTRY_WITHIN_S = 8.0
# Of this machine's apt, what its packages may need elsewhere too: a mirror may be a snapshot of long ago.
APT_SETTINGS = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")


@dataclass(frozen=True)
class Base:
    """The image to build on, the packages to add, and what else `docker build` is told."""

    reference: str
    packages: Sequence[str] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()


def why_not_official(references: Sequence[str]) -> str:
    """Why these cannot be had, or nothing if they can: the engine has them, or its registry answers for them within seconds."""
    from docker.errors import APIError, ImageNotFound

    client = connect_engine(REGISTRY_WITHIN_S)
    try:
        for reference in sorted(set(references)):
            try:
                client.images.get(reference)
            except ImageNotFound:
                try:
                    client.images.get_registry_data(reference)
                except APIError as error:
                    return f"{reference} cannot be pulled: {error.explanation or error}"
                except OSError:  # what the SDK raises for a registry that is silent
                    return f"{reference} cannot be pulled: its registry did not answer within {REGISTRY_WITHIN_S:g} s"
    finally:
        client.close()
    return ""


def find_official(client: "docker.DockerClient", recipe: Recipe, say: Say) -> Base:
    """The official image, pulled if need be, and without its volumes: each container would leave one behind. Raises MachineError."""
    from docker.errors import ImageNotFound

    try:
        image = client.images.get(recipe.official)
    except ImageNotFound:
        pull(client, recipe.official, say)
        image = client.images.get(recipe.official)
    config = image.attrs["Config"]
    if not config.get("Volumes"):
        return Base(recipe.official, recipe.extra)
    flat = f"{REPOSITORY}:{str(image.id).removeprefix('sha256:')[:12]}"
    environment = "".join(f"ENV {key}={value!r}\n" for key, _, value in (pair.partition("=") for pair in config.get("Env") or []))
    build(["--tag", flat, "-"], f"{recipe.name}-base", say, text=f"FROM {recipe.official} AS full\nFROM scratch\nCOPY --from=full / /\n{environment}")
    return Base(flat, recipe.extra)


def pull(client: "docker.DockerClient", reference: str, say: Say) -> None:
    """Pull, and say now and then how far it is. Raises MachineError."""
    from docker.errors import APIError

    say(f"pulling {reference}")
    repository, _, tag = reference.partition(":")
    layers: dict[str, tuple[int, int]] = {}
    said = time.monotonic()
    reason = ""
    try:
        for event in client.api.pull(repository, tag=tag, stream=True, decode=True):
            reason = event.get("error", reason)
            progress: dict[str, Any] = event.get("progressDetail") or {}
            if event.get("status") == "Downloading" and progress.get("total"):
                layers[event["id"]] = (progress["current"], progress["total"])
            if layers and time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                done, total = (sum(part) / 1e6 for part in zip(*layers.values(), strict=True))
                say(f"  {reference}: {done:.0f} of {total:.0f} MB")
    except APIError as error:
        reason = str(error.explanation or error)
    except OSError as error:  # what the SDK raises when the engine goes
        reason = str(error)
    if reason:
        raise MachineError(f"{reference} cannot be pulled: {reason}", "run again; or make it from Debian's packages: labs images --local")


def check_local(client: "docker.DockerClient", failed: str) -> None:
    """Raise MachineError, which begins with `failed`, unless a Debian for the engine can be made on this machine."""
    machine = "a machine with Linux, root and debootstrap can make them: `docker save` there and `docker load` here carry them over"
    if not sys.platform.startswith("linux"):
        raise MachineError(f"{failed}: this is no Linux", machine)
    if os.geteuid() != 0:
        raise MachineError(f"{failed}: only root can make a Debian (by debootstrap)", "sudo .venv/bin/labs images --local")
    if shutil.which("debootstrap") is None:
        raise MachineError(f"{failed}: there is no debootstrap", "apt install debootstrap (`sh infra/engine.sh debootstrap` does), then run again")
    here = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    engine = client.version()["Arch"]
    if engine != here:
        raise MachineError(f"{failed}: this machine is {here}, the engine's is {engine}", machine)


def find_local(client: "docker.DockerClient", recipe: Recipe, say: Say) -> Base:
    """A minimal Debian, made unless the engine has it. Raises MachineError."""
    from docker.errors import ImageNotFound

    script = FOLDER / "base" / "make.sh"
    tag = f"{SUITE}-{hashlib.sha256(script.read_bytes()).hexdigest()[:12]}"
    reference, making = f"{REPOSITORY}:{tag}", f"{REPOSITORY}:making"
    try:
        client.images.get(reference)
    except ImageNotFound:
        say(f"making a minimal Debian {SUITE} (half a minute)")
        with work_folder() as folder:
            # In namespaces of its own nothing of it outlives us: no mount, no process.
            alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
            command = [*alone, "sh", str(script), str(folder), SUITE, find_mirror()]
            run_logged(command, "base", say, into=["docker", "import", "-", making])  # which takes what comes, however little
        client.images.get(making).tag(REPOSITORY, tag)
        client.images.remove(making, noprune=True)
    # The network of the machine itself: where it reaches a mirror or a proxy on its loopback address, so does the build.
    return Base(reference, recipe.local, {"APT_OPTIONS": " ".join(apt_options()), **apt_proxies()}, ["--network=host"])


def find_mirror() -> str:
    """LABS_DEBIAN_MIRROR, else where this machine's apt finds Debian; empty leaves it to debootstrap."""
    if chosen := os.environ.get(MIRROR):
        return chosen
    asked = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages"]
    for line in read_lines(asked):
        origin, component, address = line.split("|", 2)  # a source may have no origin, and a flat one has no component
        if origin == "Debian" and component == "main" and "security" not in address:
            return address.rstrip("/")
    return ""


def apt_options() -> list[str]:
    """Options for apt inside, as this machine's apt has them."""
    lines = read_lines(["apt-config", "dump", "--format", "%f=%v%n", *APT_SETTINGS])
    return [f"-o={line}" for line in lines if line.partition("=")[2]]


def apt_proxies() -> dict[str, str]:
    """The proxies of this machine's apt, as the variables that Docker keeps out of an image's history."""
    found = {}
    for scheme in ("http", "https"):
        lines = read_lines(["apt-config", "dump", "--format", "%v%n", f"Acquire::{scheme}::Proxy"])
        if proxy := next(filter(None, lines), ""):
            found[f"{scheme}_proxy"] = proxy
    return found


def read_lines(command: Sequence[str]) -> list[str]:
    """What a command prints; nothing where there is no such command."""
    if shutil.which(command[0]) is None:
        return []
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
