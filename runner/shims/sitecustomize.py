"""The clock shim of a skewable replica: shifts the wall clock of this Python by what the kit writes into a pipe.

Python imports this module at its start because the kit puts its folder first in PYTHONPATH. The monotonic clock is left alone, as a
stepped system clock leaves it.
"""

import datetime
import os
import threading

import time_machine


def follow(fifo: str) -> None:
    """Apply each offset (seconds, one a line) that arrives; each open-to-close of the writer is one message."""
    traveller: time_machine.travel | None = None
    while True:
        with open(fifo) as lines:  # noqa: PTH123 - blocks until the kit opens the other end
            for line in lines:
                if traveller is not None:
                    traveller.stop()
                    traveller = None
                if offset_s := float(line):
                    now = datetime.datetime.now(datetime.UTC)
                    traveller = time_machine.travel(now + datetime.timedelta(seconds=offset_s), tick=True)
                    traveller.start()
                with open(fifo + ".done", "w") as done:  # noqa: PTH123 - tells the kit that it is in force
                    done.write(line)


if "CLOCK_SKEW_FIFO" in os.environ:
    path = os.path.join(os.environ["HOME"], os.environ.pop("CLOCK_SKEW_FIFO"))  # noqa: PTH118
    if not os.path.exists(path):  # noqa: PTH110 - still there after a restart
        os.mkfifo(path)
    threading.Thread(target=follow, args=(path,), name="clock-skew", daemon=True).start()
