"""Tells a replica's Python to shift its clock, through the pipe that its shim reads. Standard library only: it also runs in the app's container."""

import errno
import os
import sys
import time

FIFO = "clock-skew.fifo"


def shift(home: str, offset_s: float, within_s: float) -> bool:
    """Shift by `offset_s` from the true time, and return when it is in force; False when nothing reads the pipe (no Python there).

    Raises TimeoutError when the shim was told and did not answer.
    """
    deadline = time.monotonic() + within_s
    fifo, done = os.path.join(home, FIFO), os.path.join(home, f"{FIFO}.done")  # noqa: PTH118 - pathlib would cost its import
    if os.path.exists(done):  # noqa: PTH110
        os.unlink(done)  # noqa: PTH108
    while True:
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT):
                raise
            if time.monotonic() > deadline:
                return False
        time.sleep(0.005)  # a pipe tells a writer nothing before it has a reader
    with os.fdopen(fd, "w") as pipe:
        pipe.write(f"{offset_s}\n")
    while not os.path.exists(done) or not os.path.getsize(done):  # noqa: PTH110, PTH202
        if time.monotonic() > deadline:
            raise TimeoutError(f"the clock was told to shift and did not within {within_s:g} s")
        time.sleep(0.005)  # the answer comes from another process, into a file
    return True


if __name__ == "__main__":
    sys.exit(0 if shift(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])) else 1)
