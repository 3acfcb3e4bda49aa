"""Where a learner stands: `.labs/progress.json`, written whole or not at all."""

import fcntl
import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runner.checkout import find_root, shown_path

VERSION = 1
STATES = ("new", "started", "failed", "passed")


@dataclass(frozen=True)
class Standing:
    """One lab: its state, and how many of its hints were shown."""

    state: str = "new"
    hints: int = 0

    def __post_init__(self) -> None:
        if self.state not in STATES or type(self.hints) is not int or self.hints < 0:
            raise ValueError(f"it holds the state {self.state!r} with {self.hints!r} hints")


def read_progress(root: Path | None = None) -> dict[str, Standing]:
    """Where the learner stands in each lab begun. A broken file is kept as progress.json.broken, which is said on stderr."""
    path = progress_file(root)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            raise ValueError(f"its version is {data['version']!r}, this kit knows {VERSION}")  # noqa: TRY301 - told like all else below
        return {name: Standing(**values) for name, values in data["labs"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        warn(f"your progress cannot be read: {error}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        set_aside(path, error)
    return {}


def record_state(lab: str, state: str) -> None:
    """Note what a run of the learner's own came to. Once passed stays passed."""
    update_progress(lab, state=state)


def record_hints(lab: str, hints: int) -> None:
    """Note how many hints of a lab were shown."""
    update_progress(lab, hints=hints)


def update_progress(lab: str, *, state: str | None = None, hints: int | None = None) -> None:
    """Set values of one lab. A disk that refuses is said on stderr: a verdict is not lost for want of a note."""
    path = progress_file()
    try:
        with locked(path.with_name("progress.lock")):
            labs = read_progress()
            standing = labs.get(lab, Standing())
            if state is not None and standing.state != "passed":
                standing = replace(standing, state=state)
            if hints is not None:
                standing = replace(standing, hints=hints)
            rows = {name: asdict(row) for name, row in sorted({**labs, lab: standing}.items())}
            temporary = path.with_suffix(".json.new")
            temporary.write_text(json.dumps({"version": VERSION, "labs": rows}, indent=1) + "\n", encoding="utf-8")
            temporary.replace(path)
    except OSError as error:
        warn(f"your progress cannot be saved: {error}")


def progress_file(root: Path | None = None) -> Path:
    """The file that holds it."""
    return (root or find_root()) / ".labs" / "progress.json"


def set_aside(path: Path, error: Exception) -> None:
    """Keep a broken file under another name, so that nothing is lost when a new one begins."""
    names = itertools.chain(["progress.json.broken"], (f"progress.json.broken-{number}" for number in itertools.count(2)))
    backup = next(free for name in names if not (free := path.with_name(name)).exists())
    try:
        path.replace(backup)
    except OSError as refused:
        warn(f"your progress file {shown_path(path)} is broken ({error}) and cannot be moved: {refused}")
    else:
        warn(f"your progress file was broken ({error}): it is kept as {shown_path(backup)}, and a new one begins")


def warn(message: str) -> None:
    """Say something beside the command's own output."""
    print(message, file=sys.stderr)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file: two runs that end together must not lose each other's note."""
    path.parent.mkdir(exist_ok=True)
    handle = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
