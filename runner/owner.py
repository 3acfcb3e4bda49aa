"""Who answers for what a run leaves lying about: its guard. Dead guards' things may be removed."""

import contextlib
import functools
from pathlib import Path
from socket import gethostname

import psutil


def owner_of(guard_pid: int) -> str:
    """Who answers for a run: this machine's name and boot, the guard's pid and when it started."""
    return f"{gethostname()}|{boot_id()}|{guard_pid}|{psutil.Process(guard_pid).create_time():.2f}"


@functools.cache
def boot_id() -> str:
    """What this boot of the machine is called (random(4)); without Linux when it was."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{psutil.boot_time():.0f}"


def is_orphan(owner: str) -> bool:
    """Whether the owner was a guard on this machine that lives no more. Those of other machines are not ours to judge."""
    try:
        host, boot, pid, started = owner.split("|")
        if host != gethostname():
            return False
        return boot != boot_id() or f"{psutil.Process(int(pid)).create_time():.2f}" != started
    except ValueError:
        return False
    except psutil.NoSuchProcess:
        return True
