"""Running what makes an image: `docker build` and what feeds it, logged in full, with a line now and then for the person who waits."""

import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from runner.checkout import find_root, shown_path
from runner.errors import MachineError
from runner.stack.provision import Cache

Say = Callable[[str], None]
SAY_EVERY_S = 10.0
HINTS = {
    "[Nn]o space left": "the disk that the engine keeps its images on is full; `docker system df` shows by what",
    "resolv|Unable to connect|Could not connect|Failed to fetch|[Tt]imed out": "a mirror of Debian's packages must be in reach; run again when it is",
}


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A temporary folder on the disk of the cache: /tmp may be small, or be mounted so that no Debian can be unpacked in it."""
    root = Cache().root
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".image-") as folder:
        yield Path(folder)


def build(arguments: Sequence[str], name: str, say: Say, text: str = "") -> None:
    """`docker build`, by whatever builder the engine has; `text` is the Dockerfile when that is `-`. Raises MachineError."""
    run_logged(["docker", "build", "--force-rm", *arguments], name, say, text=text)


def run_logged(command: Sequence[str], name: str, say: Say, *, text: str = "", into: Sequence[str] = ()) -> None:
    """Run a command to its end, fed with `text`; its output goes to the log, or `into` another command whose output does.

    Raises MachineError with the last lines.
    """
    log = find_root() / ".labs" / "images" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("wb") as output, contextlib.ExitStack() as stack:

        def spawn(argv: Sequence[str], stdin: int | None, stdout: int | None) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(argv, stdin=stdin, stdout=stdout or output, stderr=output)
            stack.enter_context(process)
            stack.callback(process.kill)  # does nothing to one that has ended
            return process

        first = spawn(command, subprocess.PIPE if text else subprocess.DEVNULL, subprocess.PIPE if into else None)
        processes = [first]
        if into:
            assert first.stdout is not None
            processes.append(spawn(into, first.stdout.fileno(), None))
            first.stdout.close()  # it is the other's now, which so hears of an early end
        if first.stdin is not None:
            with contextlib.suppress(BrokenPipeError), first.stdin:  # of one that has ended early its exit code tells, and its log
                first.stdin.write(text.encode())
        for process in processes:
            while True:
                try:
                    process.wait(SAY_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    say(f"  {name}: {time.monotonic() - start:.0f} s  {last_line(log)}")
    # Of a pipe both may: whoever feeds one that has failed fails too.
    if failed := [(argv, process.returncode) for argv, process in zip((command, into), processes, strict=False) if process.returncode]:
        raise failure(failed, name, log)


def last_line(log: Path) -> str:
    """What it said last, cut to a line of a terminal."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip()[:90] for line in reversed(lines) if line.strip()), "")


def failure(failed: Sequence[tuple[Sequence[str], int]], name: str, log: Path) -> MachineError:
    """What to raise for commands that failed, each with its exit code."""
    said = log.read_text(errors="replace")
    tail = "\n".join(f"  | {line[:200]}" for line in said.splitlines()[-12:])
    hint = next((hint for pattern, hint in HINTS.items() if re.search(pattern, said)), "read the log, and run again")
    ended = ", ".join(f"`{' '.join(argv[:2])}` ended with exit code {code}" for argv, code in failed)
    return MachineError(f"making {name} failed: {ended}\n{tail}\n  log: {shown_path(log)}", hint)
