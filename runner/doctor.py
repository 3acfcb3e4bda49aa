"""`labs doctor`: looks at the machine and the set-up, and clears what a killed run may have left."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
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
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if engine is not None:
        from runner.stack.sweep import sweep

        for run in runs:
            sweep(engine, run)
    print("\nremoved")
    return 0


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
    except MachineError as error:
        print(f"docker     {error}")
        return None, {}
    missing = missing_images(engine, IMAGES)
    state = f"no image for {', '.join(missing)}: `make images` prepares them" if missing else "all images are there"
    print(f"docker     engine {engine.version()['Version']}; {state}")
    return engine, orphaned_runs(engine)


def orphaned_processes() -> Iterator[psutil.Process]:
    """Processes of a run whose guard is gone: their HOME is a run's temporary folder, and no guard is among their ancestors."""
    prefix = os.path.join(tempfile.gettempdir(), FOLDER_PREFIX)  # noqa: PTH118 - compared as text
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("HOME", "").startswith(prefix) and not any(is_guard(parent) for parent in process.parents()):
                yield process


def orphaned_folders() -> Iterator[Path]:
    """Temporary folders of runs whose guard is dead; one that names no guard belongs to nobody once it is old."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            if not folder.is_dir() or folder.stat().st_uid != os.getuid():
                continue
            file = folder / OWNER_FILE
            if is_orphan(file.read_text()) if file.exists() else time.time() - folder.stat().st_mtime > NAMELESS_S:
                yield folder


def is_guard(process: psutil.Process) -> bool:
    """Whether a process is the guard of a run."""
    return any(part.endswith("runner/guard.py") for part in process.cmdline()[:5])


def size_of(folder: Path) -> int:
    """Bytes below a folder; 0 when there is none."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) if folder.exists() else 0
