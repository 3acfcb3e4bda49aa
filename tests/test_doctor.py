"""`labs doctor`: what it finds on a machine after a run that was killed, and that it removes nothing else."""

import os
import shutil
import time
from pathlib import Path

from runner.children import FOLDER_PREFIX, OWNER_FILE
from runner.doctor import NAMELESS_S, orphaned_folders
from runner.owner import owner_of


def make_folder(path: Path, owner: bytes | None = None, age_s: float = 2 * NAMELESS_S) -> None:
    """A folder in the place for temporary files, and what it says of its owner."""
    path.mkdir()
    if owner is not None:
        (path / OWNER_FILE).write_bytes(owner)
    os.utime(path, (time.time() - age_s,) * 2)


def test_folders_of_other_programs_and_of_living_runs_are_left_alone(temporary: Path) -> None:
    host, _, pid, started = owner_of(os.getpid()).split("|")
    for name in ("labs-mine", "labs-run", "backend-labs", "backend-labs-main"):
        make_folder(temporary / name)
    for name, owner in {
        "living": owner_of(os.getpid()).encode(),
        "elsewhere": b"elsewhere|boot|1|1.00",
        "dead": f"{host}|another boot|{pid}|{started}".encode(),
        "nameless": None,
    }.items():
        make_folder(temporary / f"{FOLDER_PREFIX}{name}", owner)
    make_folder(temporary / f"{FOLDER_PREFIX}new", age_s=0)
    assert {folder.name.removeprefix(FOLDER_PREFIX) for folder in orphaned_folders()} == {"dead", "nameless"}
    for folder in temporary.iterdir():
        shutil.rmtree(folder)
