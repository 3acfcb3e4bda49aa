"""Removes what runs in Docker left behind: containers, networks and volumes that bear a run's label, and nothing else.

`python -m runner.stack.sweep RUN` is what the guard calls when the runner is gone, was cut off while it made something, or got no answer;
`labs doctor` looks for the runs of dead guards.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from runner.owner import is_orphan

if TYPE_CHECKING:
    import docker

RUN_LABEL = "backend-labs.run"
OWNER_LABEL = "backend-labs.owner"
BY_HAND = "by-hand"
WITHIN_S = 30.0
SETTLED_LOOKS = 2
LOOK_EVERY_S = 0.05
UNDER_WAY_S = 3.0  # the engine finishes a request whose sender is gone; a network takes it 0.1 s, many times that when it is busy


def things_of(client: "docker.DockerClient", filters: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the engine has with these labels: (kind, as the engine describes it)."""
    api = client.api
    yield from (("container", c) for c in api.containers(all=True, filters=filters))
    yield from (("network", n) for n in api.networks(filters=filters))
    yield from (("volume", v) for v in api.volumes(filters=filters)["Volumes"] or [])


def name_of(kind: str, thing: dict[str, Any]) -> str:
    """By what it is removed: a volume has no id."""
    return str(thing["Name"] if kind == "volume" else thing["Id"])


def sweep(client: "docker.DockerClient", run: str, empty_for_s: float = 0.0) -> int:
    """Remove everything of a run, and return how many things that were. Looks again until nothing was found for `empty_for_s`, and twice."""
    api = client.api
    remove: dict[str, Callable[[str], Any]] = {
        "container": lambda name: api.remove_container(name, force=True, v=True),
        "network": api.remove_network,
        "volume": lambda name: api.remove_volume(name, force=True),
    }

    def clear(kind: str, name: str) -> None:
        # Gone meanwhile, still held by what goes next, or not done within the client's time: the next look tells.
        with contextlib.suppress(OSError):
            remove[kind](name)

    found_at = time.monotonic()
    deadline = found_at + WITHIN_S
    removed: set[str] = set()
    empty_looks = 0
    with ThreadPoolExecutor(max_workers=8) as pool:
        while (empty_looks < SETTLED_LOOKS or time.monotonic() < found_at + empty_for_s) and time.monotonic() < deadline:
            if empty_looks >= SETTLED_LOOKS:
                time.sleep(LOOK_EVERY_S)  # only what is not there yet can still come
            found = [(kind, name_of(kind, thing)) for kind, thing in things_of(client, {"label": f"{RUN_LABEL}={run}"})]
            empty_looks = 0 if found else empty_looks + 1
            if found:
                found_at = time.monotonic()
            for kinds in (("container",), ("network", "volume")):
                list(pool.map(lambda thing: clear(*thing), [thing for thing in found if thing[0] in kinds]))
            removed |= {name for _, name in found}
    return len(removed)


def orphaned_runs(client: "docker.DockerClient") -> dict[str, list[str]]:
    """Run -> what is left of it (`container labs-1-redis`), for the runs whose guard is dead."""
    runs: dict[str, list[str]] = {}
    for kind, thing in things_of(client, {"label": OWNER_LABEL}):
        labels = thing["Labels"] or {}
        run = labels.get(RUN_LABEL, BY_HAND)
        if run != BY_HAND and is_orphan(labels[OWNER_LABEL]):
            shown = thing["Names"][0].lstrip("/") if kind == "container" else thing["Name"]
            runs.setdefault(run, []).append(f"{kind} {shown}")
    return runs


if __name__ == "__main__":
    from runner.stack.engine import connect_engine

    sweep(connect_engine(), sys.argv[1], UNDER_WAY_S)
