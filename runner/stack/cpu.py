"""What processes of this machine have cost and hold, by its kernel."""

import contextlib

import psutil


def cpu_of(pid: int) -> float | None:
    """Seconds of CPU that a process and all below it have used since its start, in steps of 10 ms; None when it has ended.

    What has ended and was not waited for is in no account: a child whose parent ignores SIGCHLD (wait(2)), a daemon that was forked away. A check
    that must not be fooled by that looks at how long the answers took, too.
    """
    try:
        process = psutil.Process(pid)
        used = 0.0
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile, and is among what its parent has waited for
                used += sum(child.cpu_times()[:4])
        return used + sum(process.cpu_times()[:4])  # user, system, and both of the children that it has waited for
    except psutil.NoSuchProcess:
        return None


def threads_of(pid: int) -> int:
    """How many threads a process and all below it have now; 0 when it has ended."""
    try:
        process = psutil.Process(pid)
        count = int(process.num_threads())
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                count += int(child.num_threads())
    except psutil.NoSuchProcess:
        return 0
    return count
