"""Chooses where a run takes place, and says in one line which and why."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from runner.errors import LabError, LabsError, MachineError

if TYPE_CHECKING:
    import docker

BACKENDS = ("auto", "docker", "embedded")
ASKED_WITHIN_S = 3.0  # for `auto`: an engine that takes longer is as good as none


@dataclass(frozen=True)
class Choice:
    """A backend, why it was taken, and with docker the engine's client."""

    name: Literal["docker", "embedded"]
    why: str = ""
    client: "docker.DockerClient | None" = None

    def close(self) -> None:
        """Let go of the engine: whoever runs something connects anew."""
        if self.client is not None:
            self.client.close()

    def __str__(self) -> str:
        return f"{self.name} ({self.why})" if self.why else self.name


def choose_backend(asked: str, services: Sequence[str], programs: Sequence[str] = ()) -> Choice:
    """`embedded` and `docker` are what they say; `auto` is docker when an engine answers and the images are there, else embedded.

    The images are those of the services, and of the programs that the app runs.
    Raises MachineError when docker was asked for and cannot be had, LabError when there is no such backend.
    """
    if asked not in BACKENDS:
        said = os.environ.get("LABS_BACKEND", "not set")
        raise LabError(f"no backend is called {asked!r}", hint=f"there are {', '.join(BACKENDS)}; LABS_BACKEND is {said}")
    if asked == "embedded":
        return Choice("embedded")
    from runner.stack.engine import is_engine_near

    if asked == "auto" and not is_engine_near():
        return Choice("embedded", "no Docker engine here")
    try:
        return Choice("docker", client=prepared_engine(services, programs, quick=asked == "auto"))
    except LabsError as error:
        if asked == "docker":
            raise
        return Choice("embedded", str(error))


def prepared_engine(services: Sequence[str], programs: Sequence[str] = (), *, quick: bool) -> "docker.DockerClient":
    """A client of an engine that has Compose and the images. Raises MachineError."""
    from runner.images import image_of, missing_images
    from runner.stack.engine import ANSWER_WITHIN_S, compose_command, connect_engine

    client = connect_engine(ASKED_WITHIN_S if quick else ANSWER_WITHIN_S)
    try:
        if services:
            compose_command()
        require_images(missing_images(client, sorted({*services, "runtime", *(image_of([program]) for program in programs)})))
    except BaseException:
        client.close()
        raise
    client.api.timeout = int(ANSWER_WITHIN_S)  # of a run's requests some take longer
    return client


def require_images(missing: Sequence[str]) -> None:
    """Raises MachineError when an image is missing: pulling or building takes minutes, and nobody asked for that."""
    if missing:
        hint = "BACKEND=embedded needs no Docker"
        raise MachineError(f"Docker has no image for {', '.join(missing)} yet: `make images` prepares them, once", hint)
