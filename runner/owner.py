"""Who answers for what a run leaves lying about: its guard. Dead guards' things may be removed."""

import contextlib
import functools
from pathlib import Path
from socket import gethostname

import psutil


def owner_of(guard_pid: int) -> str:
    """Who answers for a run: this machine's name and boot, the guard's pid and when it started."""
    return f"{gethostname()}|{boot_id()}|{guard_pid}|{start_of(guard_pid)}"


@functools.cache
def boot_id() -> str:
    """What this boot of the machine is called (random(4)); without Linux when it was."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{psutil.boot_time():.0f}"


def start_of(pid: int) -> str:
    """When a process started: on Linux in ticks since the boot, which no step of the wall clock moves. Raises psutil.NoSuchProcess.

    Source: proc_pid_stat(5), field 22.
    """
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return f"{psutil.Process(pid).create_time():.2f}"


def is_orphan(owner: str) -> bool:
    """Whether the owner was a guard on this machine that lives no more. Those of other machines are not ours to judge."""
    try:
        host, boot, pid, started = owner.split("|")
        if host != gethostname():
            return False
        return boot != boot_id() or start_of(int(pid)) != started
    except ValueError:
        return False
    except psutil.NoSuchProcess:
        return True
