"""Makes the images of the Docker backend: on official ones, or from distribution packages where no registry is in reach."""

import contextlib
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.errors import MachineError
from runner.image_base import Base, check_local, find_local, find_official, why_not_official
from runner.image_build import Say, build, work_folder
from runner.images import BASE_LABEL, REPOSITORY, VERSION_LABEL, missing_images, tag_of
from runner.recipe import RECIPES, Recipe
from runner.stack.engine import compose_command, connect_engine

if TYPE_CHECKING:
    import docker

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
WORK_WITHIN_S = 300.0  # for one answer of an engine that is busy


def make(names: Sequence[str], *, is_local: bool | None, say: Say) -> None:
    """See `runner.images.make_images`."""
    compose_command()  # missing, it would be missed at the first run only
    with contextlib.closing(connect_engine(WORK_WITHIN_S)) as client:
        recipes = [RECIPES[name] for name in list_wanted(client, names, is_local)]
        if not recipes:
            say("the images are there already")
            return
        kind = choose_kind(client, recipes, is_local, say)
        for recipe in recipes:
            base = find_local(client, recipe, say) if kind == "local" else find_official(client, recipe, say)
            make_image(client, recipe, base, kind, say)


def list_wanted(client: "docker.DockerClient", names: Sequence[str], is_local: bool | None) -> list[str]:
    """What is to be made, in the order of making: Kafka is trained in the runtime image."""
    wanted = set(missing_images(client, names))
    if is_local is not None:
        kind = "local" if is_local else "official"
        wanted |= {name for name in names if name not in wanted and client.images.get(tag_of(name)).labels.get(BASE_LABEL) != kind}
    if any(RECIPES[name].needs_trainer for name in wanted):
        wanted |= set(missing_images(client, ["runtime"]))
    return sorted(wanted, key=lambda name: (RECIPES[name].needs_trainer, name))


def choose_kind(client: "docker.DockerClient", recipes: Sequence[Recipe], is_local: bool | None, say: Say) -> str:
    """`local` or `official`. Raises MachineError when the one that is asked for cannot be, or neither."""
    if is_local:
        check_local(client, "images cannot be made here")
        return "local"
    if reason := why_not_official([recipe.official for recipe in recipes]):
        if is_local is False:
            raise MachineError(reason, "run again when the registry is in reach; or make them from Debian's packages: labs images --local")
        check_local(client, f"{reason}\nand images cannot be made here either")
        say(f"{reason}\nso the images are made here, from Debian's packages and Maven Central")
        return "local"
    return "official"


def make_image(client: "docker.DockerClient", recipe: Recipe, base: Base, kind: str, say: Say) -> None:
    """Build it, run its server's program once, and give it its tag last: what has the tag is whole. Raises MachineError."""
    start = time.monotonic()
    say(f"making {recipe.name}")
    making = f"{REPOSITORY}/{recipe.name}:making"
    arguments = {"BASE": base.reference, "PACKAGES": " ".join(base.packages), **base.build_args}
    if recipe.needs_trainer:
        arguments["TRAINER"] = tag_of("runtime")
    engine = client.version()["Arch"]
    with work_folder() as folder:
        recipe.lay_out(folder, MACHINES.get(engine, engine))
        given = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
        build(["--tag", making, *given, *base.options, str(folder)], recipe.name, say)
    version = read_version(client, recipe, making)
    labelled = f'FROM {making}\nLABEL {BASE_LABEL}="{kind}" {VERSION_LABEL}="{version}"\n'
    build(["--tag", tag_of(recipe.name), "-"], f"{recipe.name}-label", say, text=labelled)
    client.images.remove(making, noprune=True)
    client.images.prune(filters={"dangling": True, "label": f"{REPOSITORY}.stage"})
    size = client.images.get(tag_of(recipe.name)).attrs["Size"]
    say(f"made {recipe.name} {version} ({kind}) in {time.monotonic() - start:.0f} s, {size / 1e6:.0f} MB")


def read_version(client: "docker.DockerClient", recipe: Recipe, reference: str) -> str:
    """The version that the server's own program prints. Raises MachineError: then the image does not work."""
    from docker.errors import APIError, ContainerError

    entrypoint, *command = recipe.version
    try:
        printed = client.containers.run(reference, command, entrypoint=entrypoint, remove=True, network_mode="none", stderr=True).decode()
    except (APIError, ContainerError) as error:  # the first when there is no such program
        raise MachineError(f"the new image of {recipe.name} does not work: {error}") from error
    found = re.search(r"\d+\.\d+\.\d+", printed)
    if found is None:
        raise MachineError(f"the new image of {recipe.name} does not tell its version: {' '.join(recipe.version)} printed {printed.strip()!r}")
    return found[0]
