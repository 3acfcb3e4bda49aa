"""The clock shim of a skewable replica: shifts the wall clock of this Python by what the kit writes into a pipe.

Python imports this module at its start because the kit puts its folder first in PYTHONPATH. The monotonic clocks start at random, as those of
different machines do; a shift leaves them alone, as a stepped system clock does.
"""

import functools
import os
import random
import time

if "CLOCK_SKEW_FIFO" in os.environ:  # before anything imports the names
    start_s = random.SystemRandom().randrange(1, 10**6)
    for name, shift in [("monotonic", start_s), ("monotonic_ns", start_s * 10**9), ("perf_counter", start_s), ("perf_counter_ns", start_s * 10**9)]:
        setattr(time, name, functools.partial(lambda clock, shift: clock() + shift, getattr(time, name), shift))

import datetime
import threading

import time_machine


def follow(fifo: str) -> None:
    """Apply each offset (seconds, one a line) that arrives."""
    traveller: time_machine.travel | None = None
    # Open for writing too, it has no end: between an end and the next open, a message would be lost.
    with os.fdopen(os.open(fifo, os.O_RDWR)) as lines:
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
    fifo_path = os.path.join(os.environ["HOME"], os.environ.pop("CLOCK_SKEW_FIFO"))  # noqa: PTH118
    if not os.path.exists(fifo_path):  # noqa: PTH110 - still there after a restart
        os.mkfifo(fifo_path)
    threading.Thread(target=follow, args=(fifo_path,), name="clock-skew", daemon=True).start()
