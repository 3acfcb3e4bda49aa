"""The guard: a small process that starts a run's processes and outlives the runner, to end every one of them and remove what was temporary.

It is the parent of all that a run starts, in a session of its own, and a subreaper: whatever forks twice to get away becomes its child again
(prctl(2), PR_SET_CHILD_SUBREAPER). When the runner closes its end of the socket, on purpose or by dying, the guard kills its descendants
until none is left. Standard library only, and no import of `runner`: it starts in 20 ms.
"""

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
from typing import Any

LOG_HEAD_BYTES = 8 << 20
LOG_TAIL_BYTES = 64 << 10
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GROUP_SIGNALS = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT}
IS_LINUX = sys.platform.startswith("linux")


class Log:
    """What one process printed: the first 8 MiB as they came, then only the last 64 KiB, so that a flood fills no disk."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.left = LOG_HEAD_BYTES - os.fstat(self.fd).st_size
        self.dropped = 0
        self.tail = b""

    def write(self, data: bytes) -> None:
        """Keep or drop; a full disk loses log lines, never the run."""
        head, rest = data[: max(self.left, 0)], data[max(self.left, 0) :]
        with contextlib.suppress(OSError):
            os.write(self.fd, head)
        self.left -= len(head)
        self.dropped += len(rest)
        self.tail = (self.tail + rest)[-LOG_TAIL_BYTES:]

    def settle(self) -> None:
        """Write the tail that was held back."""
        if self.tail:
            note = f"\n[... {self.dropped - len(self.tail)} bytes dropped: the log is limited to {LOG_HEAD_BYTES} ...]\n"
            with contextlib.suppress(OSError):
                os.write(self.fd, note.encode() + self.tail)
        self.tail, self.dropped = b"", 0


class Guard:
    """The loop: requests from the runner, output of the children, and their deaths."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.selector = selectors.DefaultSelector()
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self.ids: dict[int, int] = {}  # pid -> the number of the spawn request: pids are used again, numbers are not
        self.logs: dict[int, tuple[int, Log]] = {}  # pid -> (read end of its output, log)
        self.folders: list[str] = []
        self.last_commands: list[tuple[list[str], dict[str, str]]] = []
        self.pending = b""
        self.libc = ctypes.CDLL(None) if IS_LINUX else None

    def run(self) -> None:
        """Serve until the runner is gone."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        stopping: list[int] = []
        signal.signal(signal.SIGTERM, lambda signo, _: stopping.append(signo))
        if self.libc is not None:
            self.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.selector.register(self.control, selectors.EVENT_READ, "control")
        self.selector.register(wake_read, selectors.EVENT_READ, "wake")
        while not stopping:
            for key, _ in self.selector.select():
                if key.data == "control":
                    if not self.serve():
                        stopping.append(0)
                elif key.data == "wake":
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                    self.reap()
                else:
                    self.pump(key.data)

    def serve(self) -> bool:
        """Answer what the runner asked; False when it is gone or asked for the end."""
        try:
            data = self.control.recv(1 << 20)
        except OSError:
            return False
        self.pending += data
        *lines, self.pending = self.pending.split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["do"] == "end":
                if request["is_swept"]:
                    self.last_commands.clear()
                return False
            getattr(self, "do_" + request["do"])(request)
        return bool(data)

    def do_spawn(self, request: dict[str, Any]) -> None:
        """Start a child and tell its pid, or why it could not be started."""
        try:
            log = Log(request["log"])
            try:
                process = subprocess.Popen(
                    request["argv"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    bufsize=0,
                    env=request["env"],
                    cwd=request["cwd"],
                    start_new_session=True,
                    preexec_fn=self.die_with_guard,  # noqa: PLW1509 - the guard has one thread
                )
            except BaseException:
                os.close(log.fd)
                raise
        except (OSError, ValueError) as error:
            what = f"{error.strerror}: {error.filename or request['argv'][0]}" if isinstance(error, OSError) else str(error)
            self.tell({"event": "failed", "id": request["id"], "error": what})
            return
        assert process.stdout is not None
        fd = process.stdout.fileno()
        os.set_blocking(fd, False)
        self.children[process.pid] = process
        self.ids[process.pid] = request["id"]
        self.logs[process.pid] = (fd, log)
        self.selector.register(fd, selectors.EVENT_READ, process.pid)
        self.tell({"event": "spawned", "id": request["id"], "pid": process.pid})

    def do_signal(self, request: dict[str, Any]) -> None:
        """Signal a child that has not been reaped; a fault hits all of its process group, as Docker's hit the whole container."""
        # Only the guard may signal a child: it alone knows that the pid was not yet reaped and given to somebody else.
        if request["pid"] in self.children:
            send = os.killpg if request["signo"] in GROUP_SIGNALS else os.kill
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: of a group that has ended and is not reaped
                send(request["pid"], request["signo"])

    def do_own(self, request: dict[str, Any]) -> None:
        """Remember a folder to remove at the end."""
        self.folders.append(request["folder"])
        self.tell({"event": "owned", "id": request["id"]})

    def do_at_end(self, request: dict[str, Any]) -> None:
        """Remember a command to run at the end."""
        self.last_commands.append((request["argv"], request["env"]))
        self.tell({"event": "noted", "id": request["id"]})

    def die_with_guard(self) -> None:
        """In the child, before it becomes the program: the kernel ends it if the guard itself is killed."""
        if self.libc is not None:
            self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def pump(self, pid: int) -> None:
        """Move one chunk of a child's output to its log."""
        if pid not in self.logs:
            return  # reaped a moment ago, by the same look at the selector
        fd, log = self.logs[pid]
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        if data:
            log.write(data)
        else:
            self.selector.unregister(fd)

    def reap(self) -> None:
        """Tell the exit codes of all that has ended, after the last of its output."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self.children.pop(pid, None)
            if process is None:
                continue  # an orphan that this subreaper had inherited
            process.returncode = os.waitstatus_to_exitcode(status)
            fd, log = self.logs.pop(pid)
            for _ in range(64):  # what it printed last; bounded, for a grandchild may go on printing into the same pipe
                try:
                    data = os.read(fd, 1 << 16)
                except BlockingIOError:
                    break
                if not data:
                    break
                log.write(data)
            log.settle()
            os.close(log.fd)
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(fd)
            assert process.stdout is not None
            process.stdout.close()
            self.tell({"event": "exited", "child": self.ids.pop(pid), "code": process.returncode})

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to the runner, if it still lives."""
        with contextlib.suppress(OSError):
            self.control.sendall(json.dumps(event).encode() + b"\n")

    def end(self) -> None:
        """Kill every descendant until none is left, then remove the temporary folders."""
        signal.set_wakeup_fd(-1)
        while True:
            for pid in descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)  # no more than one: what was born between the look and the kill is only seen by the next look
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                if not IS_LINUX or not descendants(os.getpid()):
                    break
        for _, log in self.logs.values():
            log.settle()
        for argv, env in self.last_commands:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        self.tell({"event": "ended"})


def descendants(root: int) -> list[int]:
    """The pids of all processes below `root`, by the parents that the kernel reports now."""
    parents: dict[int, int] = {}
    if IS_LINUX:
        for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib would cost the guard's start
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat", "rb") as stat:  # noqa: PTH123
                        parents[int(entry)] = int(stat.read().rpartition(b")")[2].split()[1])
                except OSError:
                    continue  # it ended while we looked
    else:
        listing = subprocess.run(["/bin/ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=False)
        for line in listing.stdout.splitlines():
            pid, parent = line.split()
            parents[int(pid)] = int(parent)
    below = {root}
    grew = True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in below} - below
        below |= more
        grew = bool(more)
    return sorted(below - {root})


if __name__ == "__main__":
    guard = Guard(socket.socket(fileno=int(sys.argv[1])))
    try:
        guard.run()
    finally:
        guard.end()  # after a failure of its own too
