"""The images of the Docker backend: what they are called, whether they are there, and the `labs images` command."""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from runner.errors import LabError, MachineError
from runner.recipe import RECIPES

if TYPE_CHECKING:
    import docker

IMAGES = ("redis", "mysql", "kafka", "nginx", "node", "runtime")
PROGRAMS = {"nginx": "nginx", "node": "node"}  # of an app -> the image that has it; the runtime has all others
REPOSITORY = "backend-labs"
BASE_LABEL = f"{REPOSITORY}.base"
VERSION_LABEL = f"{REPOSITORY}.version"


@functools.cache
def tag_of(name: str) -> str:
    """`backend-labs/<name>:<digest of its recipe>`: an image of that tag is the right one."""
    return f"{REPOSITORY}/{name}:{RECIPES[name].digest()}"


def image_of(command: Sequence[str]) -> str:
    """The image that has a command's program."""
    return PROGRAMS.get(command[0], "runtime")


def image_env(names: Sequence[str]) -> dict[str, str]:
    """The variables of infra/docker-compose.yml: LABS_REDIS_IMAGE and so on."""
    return {f"LABS_{name.upper()}_IMAGE": tag_of(name) for name in names}


def missing_images(client: "docker.DockerClient", names: Sequence[str]) -> list[str]:
    """Those of `names` whose image the engine does not have; one question to it. Raises MachineError when it does not answer."""
    try:
        found = client.api.images(filters={"reference": f"{REPOSITORY}/*"})
    except OSError as error:  # what the SDK and requests raise is one
        raise MachineError(f"the Docker engine did not say which images it has: {error}", "BACKEND=embedded needs no Docker") from error
    there = {tag for image in found for tag in image["RepoTags"] or []}
    return [name for name in names if tag_of(name) not in there]


def make_images(names: Sequence[str], *, is_local: bool | None = None, say: Callable[[str], None]) -> None:
    """Make those of `names` that are missing, or not of the kind that is asked for.

    `is_local`: True from distribution packages, False from the official images, None from those where a registry is in reach.
    Raises MachineError.
    """
    from runner.image_maker import make

    make(names, is_local=is_local, say=say)


def run_images(arguments: argparse.Namespace) -> int:
    """`labs images`: make what is missing, and say what there is."""
    from runner.stack.engine import connect_engine

    if unknown := [name for name in arguments.names if name not in IMAGES]:
        raise LabError(f"there is no image {unknown[0]!r}", hint=f"there are {', '.join(IMAGES)}")
    names = arguments.names or list(IMAGES)
    is_local = True if arguments.local else False if arguments.official else None
    make_images(names, is_local=is_local, say=lambda line: print(line, file=sys.stderr, flush=True))
    client = connect_engine()
    for name in names:
        image = client.images.get(tag_of(name))
        labels = image.labels
        size = image.attrs["Size"] / 1e6
        print(f"{name:<8} {labels.get(VERSION_LABEL, '?'):<9} {labels.get(BASE_LABEL, '?'):<9} {size:5.0f} MB  {tag_of(name)}")
    client.close()
    return 0
