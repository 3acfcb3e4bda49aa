"""`labs doctor`: looks at the machine and the set-up, and clears what a killed run may have left."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from runner.checkout import find_root
from runner.children import FOLDER_PREFIX, OWNER_FILE
from runner.errors import MachineError
from runner.owner import is_orphan
from runner.stack.provision import Cache

if TYPE_CHECKING:
    import docker

LEAST_FREE_BYTES = 1 << 30
NAMELESS_S = 600


def examine(*, fix: bool) -> int:
    """Print what was found; 0 when nothing is wrong, or all that was wrong has been removed; 1 otherwise."""
    root, cache = find_root(), Cache()
    print(f"python     {sys.version.split()[0]} ({sys.executable})")
    print(f"checkout   {root}")
    print(f"cache      {cache.root} ({size_of(cache.root) / 1e6:.0f} MB)")
    free = shutil.disk_usage(root).free
    print(f"disk       {free / 1e9:.1f} GB free" + ("   LITTLE: Kafka alone needs 0.3 GB" if free < LEAST_FREE_BYTES else ""))
    print(f"cores      {os.cpu_count()}, {psutil.virtual_memory().available / 1e9:.1f} GB of memory available")
    if not sys.platform.startswith("linux"):
        print("guard      without Linux's subreaper a process that forks twice can outlive a killed run: this command finds it")
    folders, processes = list(orphaned_folders()), list(orphaned_processes())
    engine, runs = look_into_docker()
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it may have ended meanwhile
            print(f"left over  process {process.pid}: {' '.join(process.cmdline())[:100]}")
    for folder in folders:
        print(f"left over  folder {folder}")
    for run, things in runs.items():
        for thing in things:
            print(f"left over  {thing} (run {run})")
    if not folders and not processes and not runs:
        print("left over  nothing")
        return 0
    if not fix:
        print("\nnext: `labs doctor --fix` (or `make doctor FIX=1`) removes what is left over")
        return 1
    left = remove(folders, processes, engine, runs)
    print(f"\nremoved, but for {', '.join(left)}" if left else "\nremoved")
    return int(bool(left))


def remove(
    folders: Sequence[Path], processes: Sequence[psutil.Process], engine: "docker.DockerClient | None", runs: Mapping[str, Sequence[str]]
) -> list[str]:
    """Remove what was found, and tell what is still there. Raises MachineError when the engine fails."""
    from runner.stack.sweep import orphaned_runs, sweep

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    left = [f"process {process.pid}" for process in orphaned_processes()] + [f"folder {folder}" for folder in folders if folder.exists()]
    if engine is not None:
        with engine_errors():
            for run in runs:
                sweep(engine, run)
            left += [thing for things in orphaned_runs(engine).values() for thing in things]
    return left


def look_into_docker() -> "tuple[docker.DockerClient | None, dict[str, list[str]]]":
    """The engine, if one answers, and what dead runs left in it."""
    from runner.images import IMAGES, missing_images
    from runner.stack.engine import connect_engine, is_engine_near
    from runner.stack.sweep import orphaned_runs

    if not is_engine_near():
        print("docker     no engine here; labs run embedded")
        return None, {}
    try:
        engine = connect_engine(timeout_s=5)
        with engine_errors():
            version, missing, runs = engine.version()["Version"], missing_images(engine, IMAGES), orphaned_runs(engine)
    except MachineError as error:
        print(f"docker     {error}")
        return None, {}
    state = f"no image for {', '.join(missing)}: `make images` prepares them" if missing else "all images are there"
    print(f"docker     engine {version}; {state}")
    return engine, runs


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Raises MachineError for what the SDK raises: the engine may be slow, or go."""
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, OSError) as error:  # those of requests are OSErrors
        raise MachineError(f"the Docker engine has failed: {error}", "is it busy, or full? run again") from error


def orphaned_processes() -> Iterator[psutil.Process]:
    """Processes of a run whose guard is gone: their HOME is a run's temporary folder, and no guard is among their ancestors."""
    prefix = os.path.join(tempfile.gettempdir(), FOLDER_PREFIX)  # noqa: PTH118 - compared as text
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("HOME", "").startswith(prefix) and not any(is_guard(parent) for parent in process.parents()):
                yield process


def orphaned_folders() -> Iterator[Path]:
    """Temporary folders of runs whose guard is dead; one that names no guard (the disk was full) belongs to nobody once it is old."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            if not folder.is_dir() or folder.stat().st_uid != os.getuid():
                continue
            file = folder / OWNER_FILE
            owner = file.read_text(errors="replace") if file.exists() else ""
            if is_orphan(owner) if owner.count("|") == 3 else time.time() - folder.stat().st_mtime > NAMELESS_S:
                yield folder


def is_guard(process: psutil.Process) -> bool:
    """Whether a process is the guard of a run."""
    return any(part.endswith("runner/guard.py") for part in process.cmdline()[:5])


def size_of(folder: Path) -> int:
    """Bytes below a folder; 0 when there is none."""
    total = 0
    for place, _, names in os.walk(folder):  # it passes over folders that are gone meanwhile
        for name in names:
            with contextlib.suppress(OSError):  # a run may fill or trim the cache just now
                total += Path(place, name).lstat().st_size
    return total
