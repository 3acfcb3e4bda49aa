"""Shifts the wall clock of one replica while it runs, through the shim that its Python loads (`runner/shims/sitecustomize.py`)."""

import errno
import os
import time
from pathlib import Path

from runner.errors import MachineError

FIFO = "clock-skew.fifo"
SKEW_ENV = {"PYTHONPATH": str(Path(__file__).parent / "shims"), "CLOCK_SKEW_FIFO": FIFO}
WITHIN_S = 5.0


def shift_clock(home: Path, offset_s: float) -> bool:
    """Shift by `offset_s` from the true time, and return when it is in force; False when nothing reads the pipe (no Python there)."""
    deadline = time.monotonic() + WITHIN_S
    done = home / f"{FIFO}.done"
    done.unlink(missing_ok=True)
    while True:
        try:
            fd = os.open(home / FIFO, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT):
                raise
            if time.monotonic() > deadline:
                return False
        time.sleep(0.005)  # a pipe tells a writer nothing before it has a reader
    with os.fdopen(fd, "w") as pipe:
        pipe.write(f"{offset_s}\n")
    while not done.exists() or not done.read_text():
        if time.monotonic() > deadline:
            raise MachineError(f"the clock of {home.name} was told to shift and did not within {WITHIN_S:g} s")
        time.sleep(0.005)
    return True
