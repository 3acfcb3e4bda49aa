"""Fetching one published file: a wheel by pip, a jar by jgo, each as the user's own settings say, checked against our sums."""

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runner.errors import MachineError

JARS_AT_ONCE = 4
PIP = ("-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--no-input")


def download_wheel(requirement: str, tag: str, folder: Path) -> Path:
    """Have pip put one wheel into `folder`. Nothing is installed and no code of it runs. Raises MachineError."""
    platforms = [part for one in tag.split(".") if one != "any" for part in ("--platform", one)]
    command = [sys.executable, *PIP, *platforms, "--dest", str(folder), requirement]
    # pip downloads into TMPDIR first: there the progress bar sees it, and it goes with the rest if we die.
    done = subprocess.run(command, capture_output=True, text=True, env=pip_environment() | {"TMPDIR": str(folder)}, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No module named pip" in done.stderr:
        raise MachineError(f"{requirement} cannot be fetched: {sys.executable} has no pip", f"run: {sys.executable} -m ensurepip")
    hint = f"are you offline? where pip looks is set by pip's own settings; try: {sys.executable} -m pip download {requirement}"
    raise explain_failure(requirement, done.stderr, hint)


def pip_environment() -> dict[str, str]:
    """Ours for pip, without settings of a user's that would send packages elsewhere or choose others; those of index and proxy stay."""
    unwanted = {"PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "PIP_NO_BINARY", "PIP_REQUIREMENT"}
    return {key: value for key, value in os.environ.items() if key not in unwanted} | {"PIP_USER": "0"}


def jar_name(artifact: str) -> str:
    """Of "group:artifact:version[:classifier]", as Maven repositories name it."""
    _, name, version, *classifier = artifact.split(":")
    return "-".join([name, version, *classifier]) + ".jar"


def download_jars(wanted: Sequence[tuple[str, str]], folder: Path) -> list[Path]:
    """Jars (artifact and SHA-256) into `folder`, a few at a time; one alone in this thread, where Ctrl-C ends it at once."""
    if len(wanted) == 1:
        return [download_jar(*wanted[0], folder)]
    pool = ThreadPoolExecutor(JARS_AT_ONCE)
    try:
        return list(pool.map(lambda jar: download_jar(jar[0], jar[1], folder), wanted))
    finally:
        pool.shutdown(cancel_futures=True)


def download_jar(artifact: str, expected: str, folder: Path) -> Path:
    """One jar into `folder`: from the user's own Maven repository if it lies there intact, else by jgo. Raises MachineError."""
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    group, name, version, *classifier = artifact.split(":")
    settings = GlobalSettings.load()
    # Not the user's repository as jgo's own: what is cut off there looks finished to the next Maven.
    maven = MavenContext(repo_cache=folder)
    maven.remote_repos.update(settings.repositories)
    jar = maven.project(group, name).at_version(version).artifact(classifier[0] if classifier else "", "jar")
    at_home = settings.repo_cache / jar.component.path_prefix / jar_name(artifact)
    if at_home.is_file():
        with contextlib.suppress(MachineError, PermissionError):
            copy = Path(shutil.copyfile(at_home, folder / at_home.name))
            verify(copy, expected)
            return copy
    try:
        return Path(jar.resolve())
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's; the network's (of requests) carry no errno
        hint = "are you offline? run again when the network is back; a mirror goes into [repositories] of ~/.config/jgo.conf"
        raise explain_failure(artifact, str(error), hint) from error


def explain_failure(what: str, output: str, hint: str) -> OSError | MachineError:
    """What to raise when a downloader failed with `output`."""
    if os.strerror(errno.ENOSPC) in output:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    reason = (output.strip().splitlines() or ["it gave no reason"])[-1].removeprefix("ERROR: ")
    return MachineError(f"{what} could not be fetched: {reason}", hint)


def verify(file: Path, expected: str) -> None:
    """Delete `file` and raise MachineError unless its SHA-256 is `expected`."""
    with file.open("rb") as opened:
        seen = hashlib.file_digest(opened, "sha256").hexdigest()
    if seen != expected:
        file.unlink()
        raise MachineError(
            f"{file.name} is not the file that this kit was made with\n  expected sha256 {expected}\n  seen sha256     {seen}",
            hint="it was cut off or altered on its way (by a proxy, a mirror?) and is deleted; run again, or try another network",
        )


def unpack(archive: Path, folder: Path, prefix: str = "", keep: Callable[[str], bool] = lambda _: True) -> None:
    """Unpack a zip (a wheel, a jar) with its file modes: the members below `prefix`, named without it, that `keep` wants."""
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            name = member.filename.removeprefix(prefix)
            if member.is_dir() or not member.filename.startswith(prefix) or not keep(name):
                continue
            member.filename = name
            target = Path(opened.extract(member, folder))  # zipfile keeps a name like ../x inside the folder
            if mode := member.external_attr >> 16 & 0o777:
                target.chmod(mode | 0o600)


def platform_tags() -> list[str]:
    """The wheel platform tags that run here, best first."""
    from packaging.tags import platform_tags as tags

    return list(tags())


def fitting_tag(tags: Iterable[str]) -> str | None:
    """The tag among `tags` that suits this platform best. A tag may be several, joined by dots, as in a wheel's name."""
    ranks = {tag: rank for rank, tag in enumerate([*platform_tags(), "any"])}
    ranked = [(ranks[part], tag) for tag in tags for part in tag.split(".") if part in ranks]
    return min(ranked)[1] if ranked else None
