"""Builds .venv from the lock files, step by step; infra/setup.sh starts it with a Python that is known to do."""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STATE = ROOT / ".labs"
LOG = STATE / "setup.log"
PIP = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--no-input", "--progress-bar=off", "--disable-pip-version-check"]
PIP_LOCKED = [*PIP, "--require-hashes", "--only-binary=:all:", "--retries=2", "-r"]
PIP_EDITABLE = [*PIP, "--no-index", "--no-deps", "--no-build-isolation", "--editable"]

# Settings of a user's that would send packages elsewhere than .venv, or change what the lock says; index and proxy settings stay.
UNWANTED = {"PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "PIP_NO_BINARY", "PIP_REQUIREMENT"}

HINTS = {
    "DO NOT MATCH THE HASHES": "a package is not the one that was pinned: do not use it; ask who runs your package index",
    "No space left": "the set-up needs 250 MB; free some disk space and run again",
    "Permission denied|Read-only file system": "this checkout must be writable for you",
    # What pip and urllib3 say without a network, a name server or the proxy.
    "NewConnectionError|NameResolution|name resolution|ConnectTimeout|ReadTimeout|Max retries|[Pp]roxy|unreachable": (
        "no package index was reached: check the network (or pip's own index and proxy settings) and run again"
    ),
    "No matching distribution|Could not find a version": (
        "a package has no wheel for this machine: there are wheels for Python 3.11 to 3.14 on macOS and on Linux with "
        "glibc 2.28 or newer; name another Python with make lab PYTHON=/path/to/python3"
    ),
}


class SetupError(Exception):
    """What went wrong, and after a blank line what to do about it."""


@dataclass(frozen=True)
class Step:
    """One command of the set-up; `made_from` is what it depends on (texts, and files by their content)."""

    name: str
    command: Sequence[str]
    made_from: Sequence[str | Path]

    @property
    def mark(self) -> Path:
        """Holds the digest of what the step was last done with."""
        return VENV / f".done-{self.name.replace(' ', '-')}"

    def digest(self) -> str:
        """One sum over everything that the step is made from; comments in a file do not count."""
        texts = [part.read_text() if isinstance(part, Path) else part for part in self.made_from]
        content = [re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE) for text in texts]
        return hashlib.sha256("\0".join(content).encode()).hexdigest()

    def is_done(self) -> bool:
        """Whether it was finished with what it would be made from now."""
        return self.mark.is_file() and self.mark.read_text() == self.digest()


def main(part: str, key: str) -> int:
    """Bring `.venv` to what the lock files say; `key` is what infra/setup.sh compares the next time."""
    try:
        STATE.mkdir(exist_ok=True)
        with sole_setup() as lock:
            build(part, lock)
            for ready in {"kit", part}:
                (VENV / f".ready-{ready}").write_text(key)
    except SetupError as error:
        print(f"\nset-up: {error}", file=sys.stderr)
    except OSError as error:
        print(f"\nset-up: {error}\n\nhint: {hint_for(str(error))}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nset-up: interrupted; nothing is lost, run again", file=sys.stderr)
    else:
        return 0
    return 1


def build(part: str, lock: int) -> None:
    """Run the steps that are not done. A venv whose packages are not those of the lock is made anew."""
    runtime, development = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
    driver, generator = ROOT / "requirements-browser.lock", ROOT / "requirements-docs.lock"
    python = f"{platform.python_version()} at {ROOT}"
    environment = Step("environment", [sys.executable, "-I", "-m", "venv", str(VENV)], [python, runtime])
    packages = Step("packages", [*PIP_LOCKED, str(runtime)], [python, runtime])
    kit = Step("the kit itself", [*PIP_EDITABLE, str(ROOT)], [python, ROOT / "pyproject.toml"])
    tools = Step("tools for tests and lint", [*PIP_LOCKED, str(development)], [python, runtime, development])

    start = time.monotonic()
    LOG.unlink(missing_ok=True)
    if not (packages.is_done() and (VENV / "bin" / "python").exists()):
        count = len(re.findall(r"^\S+==", runtime.read_text(), re.MULTILINE))
        print(
            f"set-up, once: .venv with Python {platform.python_version()} and {count} pinned packages (24 MB to fetch)",
            flush=True,
        )
        remove(VENV)
    browser = Step("the driver of a browser", [*PIP_LOCKED, str(driver)], [python, runtime, driver])
    site = Step("the site's generator", [*PIP_LOCKED, str(generator)], [python, runtime, generator])
    more = {"kit": [], "dev": [tools], "browser": [tools, browser], "docs": [site]}
    wanted = [environment, packages, kit, *more[part]]
    steps = [step for step in wanted if not step.is_done()]
    for step in steps:
        run_step(step, lock)
        step.mark.write_text(step.digest())
    if steps:
        print(f"set-up: ready in {time.monotonic() - start:.1f} s", flush=True)


def run_step(step: Step, lock: int) -> None:
    """Run a step to its end; its output goes to the log, and its last line to a terminal meanwhile."""
    start = time.monotonic()
    is_live = sys.stdout.isatty()
    kept = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    # The child holds the lock too: should this process be killed, no other set-up begins while pip still writes.
    with (
        LOG.open("a") as log,
        subprocess.Popen(
            step.command,
            env=kept | {"PIP_USER": "0"},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=[lock],
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if is_live:
                print(f"\r\033[K  {step.name:<25} {line.strip()[:50]}", end="", flush=True)
    if is_live:
        print("\r\033[K", end="")
    if process.returncode != 0:
        output = LOG.read_text()
        lines = [line for line in output.splitlines() if not line.startswith(("Ignoring ", "Looking in "))]
        tail = "\n".join(f"  | {line[:200]}" for line in lines[-10:])
        raise SetupError(f"{step.name}: exit code {process.returncode}\n{tail}\n  log: {LOG}\n\nhint: {hint_for(output)}")
    print(f"  {step.name:<25} {time.monotonic() - start:5.1f} s", flush=True)


@contextmanager
def sole_setup() -> Iterator[int]:
    """Hold this checkout's set-up lock, waiting for another set-up to end; yields its descriptor."""
    with (STATE / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another one is under way in this checkout; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def remove(path: Path) -> None:
    """Remove a folder, or a link to one, if it is there."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def hint_for(output: str) -> str:
    """What to do about a failure that printed this."""
    return next((hint for pattern, hint in HINTS.items() if re.search(pattern, output)), "read the log, and run again")


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
