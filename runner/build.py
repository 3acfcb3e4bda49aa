"""What a submission needs before it runs: its build and the packages of its requirements.txt, each made once and cached by content."""

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.children import Children, clean_environment
from runner.errors import AppError, MachineError
from runner.lab import OUT, shown_path
from runner.stack import tail_of
from runner.stack.cargo import LEFT_OUT, LIMIT_BYTES
from runner.stack.download import pip_environment
from runner.stack.provision import Cache, say
from runner.tables import AppTable
from runner.toolchains import find_program, find_toolchains, network_env, path_with

BUILT, PACKAGES = ".out", ".packages"  # below the folder in which the app runs; the first is {out}
BUILD_WITHIN_S = 600.0
SHOWN_LINES = 30
KEPT = 20  # builds and layers; of those that were used within the hour all
KEPT_S = 3600.0
REQUIREMENTS = "requirements.txt"
PINNED = re.compile(r"[A-Za-z0-9][\w.-]*\s*(\[[\w\s,.-]+\])?\s*==\s*[\w.!+]+\s*(;[^#]*?)?(\s--hash=\w+:[0-9a-f]+)*")
OFFLINE = re.compile(r"dial tcp|Retrying \(Retry|EAI_AGAIN|ECONNREFUSED|ENOTFOUND|ETIMEDOUT|TLS handshake timeout|i/o timeout")
SAFE_FLAGS = re.compile(r"-trimpath|-v|-x|-race=false|-tags=[\w,]+|-p=\d+")
PIP = ("-m", "pip", "install", "--quiet", "--no-input", "--no-color", "--disable-pip-version-check", "--root-user-action=ignore")


@dataclass(frozen=True)
class Prepared:
    """A submission as it can run: the folder, and what its processes find in their environment."""

    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    packages: Path | None = None

    def fill_in(self, command: Sequence[str], port: int | None, places: Mapping[str, str] | None = None) -> list[str]:
        """A command with its port and the process's own `places`, and its built folder; that is relative, since every process starts in `folder`."""
        words = {"{port}": str(port), OUT: f"./{BUILT}", **(places or {})}
        return [functools.reduce(lambda part, word: part.replace(word, words[word]), words, part) for part in command]


def prepare(submission: Path, app: AppTable, log: Path, *, backend: str = "embedded") -> Prepared:
    """Build a submission and bring its packages, as far as they are not there from an earlier run.

    `log`: what toolchains print; the file is made when one runs. Raises AppError in the toolchain's words, MachineError when a toolchain or
    the network is missing.
    """
    cache = Cache()
    packages = install_packages(submission, cache, log, pip_options(backend)) if (submission / REQUIREMENTS).is_file() else None
    is_carried = packages is not None and backend != "embedded"  # a container sees one folder
    is_made = app.build or is_carried
    folder = build(submission, app.build or (), cache, log, backend=backend, packages=packages) if is_made else submission
    commands = [app.command, *([app.check] if app.check else ()), *(extra.command for extra in app.extra.values())]
    for command in commands:
        check_built(folder, command)
    if backend != "embedded":  # what its commands name is in an image, not here
        return Prepared(folder, {}, Path(PACKAGES) if packages else None)
    programs = dict.fromkeys(command[0] for command in commands if "/" not in command[0])
    return Prepared(folder, {"PATH": path_with(find_program(program, cache) for program in programs)}, packages)


def build(submission: Path, command: Sequence[str], cache: Cache, log: Path, *, backend: str, packages: Path | None = None) -> Path:
    """A copy of a submission in which `command` was run, what it left in {out} below `.out`; for containers with its packages."""
    if command and backend != "embedded" and not is_harmless(command):
        message = f"`{' '.join(command)}` would run on this machine, outside of every container, with a stranger's code"
        raise MachineError(
            message, f"only `go build -o {OUT}/<name> .` is run for the {backend} backend; try --backend embedded if you trust the code"
        )
    files = read_files(submission)
    toolchains = find_toolchains(command, files, cache) if command else []
    env = {key: value for toolchain in toolchains for key, value in toolchain.env.items()}
    if backend == "docker":
        env |= {"GOOS": "linux", "GOVCS": "*:off", "GOPROXY": "off"}  # what a stranger's go.mod asks for is not fetched
    digest = digest_of(files, json.dumps([1, list(command), [t.identity for t in toolchains], env, sysconfig.get_platform(), str(packages), backend]))

    def make(folder: Path) -> None:
        write_files(files, folder)
        if packages and backend != "embedded":
            shutil.copytree(packages, folder / PACKAGES, ignore=shutil.ignore_patterns("__pycache__"))
        if not command:
            return
        (folder / BUILT).mkdir()
        home = folder.parent / "home"
        home.mkdir()
        argv = [part.replace(OUT, str(folder / BUILT)) for part in command]
        if "/" in argv[0] and not os.access(folder / argv[0], os.X_OK):
            raise AppError(f"the submission has no program {argv[0]}, which builds it", hint="is it there, and executable (chmod +x)?")
        told = {**clean_environment(home), **network_env(), **env, "PATH": path_with(toolchains)}
        if packages:
            told["PYTHONPATH"] = str(packages)
        say(f"building {shown_path(submission)}: {' '.join(command)}")
        mend = f"mend it in {shown_path(submission)} and run again"
        run_tool(argv, folder, told, log, f"{shown_path(submission)} cannot be built: `{' '.join(command)}`", mend)

    return used(cache, cache.build(f"built-{digest}", make))


def is_harmless(command: Sequence[str]) -> bool:
    """Whether a build runs nothing of the submission: Go's compiler does not, unless flags or cgo (which is off) make it."""
    program, *words = command
    if program != "go" or words[:1] != ["build"]:
        return False
    rest = list(words[1:])
    if "-o" in rest[:-1]:
        place = rest.index("-o")
        if not re.fullmatch(r"\{out\}(/[\w.-]*)?", rest[place + 1]) or ".." in rest[place + 1]:
            return False
        del rest[place : place + 2]
    return all(SAFE_FLAGS.fullmatch(word) or (re.fullmatch(r"\.(/[\w./-]+)?", word) and ".." not in word.split("/")) for word in rest)


def check_built(folder: Path, command: Sequence[str]) -> None:
    """Raises AppError when a command runs what the build has not left."""
    if command[0].startswith(OUT) and not (folder / BUILT / command[0].removeprefix(f"{OUT}/")).is_file():
        left = ", ".join(sorted(path.name for path in (folder / BUILT).iterdir())[:10]) or "nothing"
        raise AppError(
            f"the build ended well, but left no {command[0]}, which shall run; it left {left}", hint="what does the build name its output?"
        )


def read_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """A submission's files by their path, each with its mode: read once, so that what is cached is what was hashed. Raises AppError."""
    files: dict[str, tuple[int, bytes]] = {}
    size = 0
    left_out = {*LEFT_OUT, BUILT, PACKAGES}
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in left_out)
        names[:] = [name for name in names if name not in left_out]
        for path in sorted(Path(where, name) for name in [*names, *(n for n in folders if Path(where, n).is_symlink())]):
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # an editor's own file, gone since we saw its name
                continue
            if stat.S_ISLNK(mode) and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
                raise AppError(f"{path.relative_to(folder)} is a link that leads out of the submission", hint="copy what it leads to")
            if stat.S_ISLNK(mode):
                files[path.relative_to(folder).as_posix()] = mode, os.fsencode(path.readlink())
            elif stat.S_ISREG(mode):
                size += path.stat().st_size
                if size > LIMIT_BYTES:
                    raise AppError(
                        f"{shown_path(folder)} is larger than {LIMIT_BYTES >> 20} MiB", hint="it should hold the app's code and nothing else"
                    )
                files[path.relative_to(folder).as_posix()] = mode, path.read_bytes()
    return files


def write_files(files: Mapping[str, tuple[int, bytes]], folder: Path) -> None:
    """What `read_files` read, in another place."""
    for name, (mode, content) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISLNK(mode):
            path.symlink_to(os.fsdecode(content))
        else:
            path.write_bytes(content)
            path.chmod(0o755 if mode & stat.S_IXUSR else 0o644)


def digest_of(files: Mapping[str, tuple[int, bytes]], more: str) -> str:
    """The hash of files and of what else a result depends on."""
    digest = hashlib.sha256(more.encode())
    for name, (mode, content) in sorted(files.items()):
        digest.update(json.dumps([name, stat.S_IFMT(mode), bool(mode & stat.S_IXUSR), len(content)]).encode())
        digest.update(content)
    return digest.hexdigest()[:24]


def install_packages(submission: Path, cache: Cache, log: Path, options: Sequence[str] = ()) -> Path:
    """A folder with the packages of requirements.txt, for PYTHONPATH: wheels only, so that nothing of theirs runs here.

    `options`: of pip, such as another `--python-version`. Raises AppError in pip's words.
    """
    lines = list(read_requirements(submission / REQUIREMENTS))
    this = [sys.implementation.cache_tag, sysconfig.get_platform(), list(options)]
    key = hashlib.sha256(json.dumps([1, this, lines]).encode()).hexdigest()[:24]

    def make(folder: Path) -> None:
        wanted = folder.parent / REQUIREMENTS
        wanted.write_text("".join(f"{line}\n" for line in lines))
        argv = [sys.executable, *PIP, "--only-binary=:all:", *options, "--target", str(folder), "--requirement", str(wanted)]
        env = pip_environment() | {"TMPDIR": str(folder.parent)}
        shown = shown_path(submission / REQUIREMENTS)
        say(f"installing {shown}: {', '.join(line.split()[0] for line in lines)}")
        hint = "only wheels are installed; does the version exist, for this Python and this platform?"
        run_tool(argv, folder, env, log, f"{shown} cannot be installed: pip", hint)

    return used(cache, cache.build(f"packages-{key}", make))


def pip_options(backend: str) -> list[str]:
    """What makes pip choose for the Python of a container, on a machine of this kind."""
    if backend == "embedded":
        return []
    from runner.recipe import GLIBC, PYTHON

    machine = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    platforms = [f"manylinux_{GLIBC[0]}_{minor}_{machine}" for minor in range(GLIBC[1], 4, -1)] + [f"manylinux2014_{machine}"]
    return [f"--python-version={PYTHON}", "--implementation=cp", *(f"--platform={one}" for one in platforms)]


def read_requirements(path: Path) -> Iterator[str]:
    """The lines of a requirements.txt, each `name==version`, markers and hashes allowed. Raises AppError for any other, options of pip too."""
    text = path.read_text(encoding="utf-8", errors="replace")
    # A line that ends in a backslash goes on; the numbers of the others shall stay.
    text = re.sub(r"((?:[^\n]*\\\n)+)([^\n]*)", lambda m: m[1].replace("\\\n", " ") + m[2] + "\n" * m[1].count("\n"), text)
    for number, line in enumerate(text.splitlines(), 1):
        wanted = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
        if wanted and not PINNED.fullmatch(wanted):
            hint = "write name==version: what passes today shall pass next year; where packages come from is set by pip's own settings"
            raise AppError(f"{shown_path(path)} line {number}: {wanted!r} is not pinned", hint=hint)
        if wanted:
            yield wanted


def run_tool(argv: Sequence[str], folder: Path, env: Mapping[str, str], log: Path, what: str, hint: str) -> None:
    """Run a toolchain to its end, and end all that it started. Raises AppError with its last lines, MachineError when it is offline."""
    children = Children()
    try:
        process = children.spawn(Path(argv[0]).name, argv, env=env, cwd=folder, log=log)
        code = process.wait(BUILD_WITHIN_S)
    finally:
        children.close()
    if code == 0:
        return
    ended = f"did not end within {BUILD_WITHIN_S:g} s" if code is None else f"ended with exit code {code}"
    said = tail_of(log, SHOWN_LINES).replace(str(folder), ".")
    if OFFLINE.search(said):
        raise MachineError(f"{what} {ended}\n{said}", hint="are you offline? the network, or what serves packages, could not be reached")
    raise AppError(f"{what} {ended}\n{said}", hint=hint)


def used(cache: Cache, folder: Path) -> Path:
    """Note that `folder` is in use, and remove those of its kind that have long not been: each edit of a learner's makes a new one."""
    kind = folder.name.partition("-")[0]
    with contextlib.suppress(OSError):  # another run may have been faster, or the cache can only be read
        os.utime(folder)
        others = sorted(cache.root.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in others[KEPT:]:
            if time.time() - old.stat().st_mtime > KEPT_S:
                gone = cache.root / ".making" / f"{old.name}~old"
                old.rename(gone)  # first: a folder that has its final name is whole
                shutil.rmtree(gone, ignore_errors=True)
    return folder
