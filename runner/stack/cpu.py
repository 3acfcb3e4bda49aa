"""What processes of this machine have cost, by its kernel."""

import contextlib

import psutil


def cpu_of(pid: int) -> float | None:
    """Seconds of CPU that a process and all below it have used since its start, in steps of 10 ms; None when it has ended."""
    try:
        process = psutil.Process(pid)
        used = 0.0
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile, and is among what its parent has waited for
                used += sum(child.cpu_times()[:4])
        return used + sum(process.cpu_times()[:4])  # user, system, and both of the children that it has waited for
    except psutil.NoSuchProcess:
        return None
