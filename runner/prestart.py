"""Which Python programs of an app can begin with their libraries before they are wanted (`runner/shims/prestart.py`), and how."""

import re
import stat
from collections.abc import Sequence
from pathlib import Path

# What it takes to serve the first request, by program; uvicorn imports these by their names, as late as it can.
PROGRAMS = {
    "python": (),
    "uvicorn": (
        "uvicorn.main",
        "uvicorn.lifespan.on",
        "uvicorn.loops.auto",
        "uvicorn.protocols.http.auto",
        "uvicorn.protocols.websockets.auto",
    ),
}
LIBRARIES = {"cryptography", "fastapi", "httpx", "jwt", "kafka", "pydantic", "pymysql", "redis", "starlette", "uvicorn"}
LARGEST = 1 << 20  # bytes of a file that is looked into
IMPORT = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)
PATCHES = re.compile(r"\b(?:gevent|eventlet|monkey)\b")  # they must come before any other import


def can_prestart(command: Sequence[str]) -> bool:
    """Whether a command is `python file.py ...` or a console script that we know."""
    if command[0] == "python":
        return len(command) > 1 and command[1].endswith(".py") and not command[1].startswith("-")
    return command[0] in PROGRAMS


def imports_of(folder: Path, command: Sequence[str]) -> list[str]:
    """The libraries to import ahead: of those that we know the ones that the files of `folder` name."""
    # No pipe, and no link to a device: these are a stranger's files, read in our process.
    stats = {path: path.lstat() for path in sorted(folder.glob("*.py"))}
    files = [path for path, of in stats.items() if stat.S_ISREG(of.st_mode) and of.st_size <= LARGEST]
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)
    if PATCHES.search(text):
        return []
    return [*PROGRAMS[command[0]], *sorted(LIBRARIES & set(IMPORT.findall(text)))]


def prestart_argv(shims: str, go: str, folder: str, imports: Sequence[str], argv: Sequence[str]) -> list[str]:
    """The command line that begins `argv` in `folder` and waits for the file `go`."""
    return ["python", f"{shims}/prestart.py", go, folder, ",".join(imports), *argv]
