"""What a run's containers need of this machine's files, packed as tar: copied, so that it works on any engine, and nobody changes it meanwhile."""

import functools
import io
import os
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path

LEFT_OUT = {"__pycache__", ".git", ".venv", "node_modules", ".pytest_cache", ".DS_Store"}
LIMIT_BYTES = 64 << 20


class TooLargeError(Exception):
    """A folder holds more than `LIMIT_BYTES`."""


def pack(folders: Mapping[str, Path]) -> bytes:
    """A tar with each folder under its name, readable by everybody and owned by root. Raises TooLargeError, OSError."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, folder in folders.items():
            tar.add(folder, name, filter=functools.partial(open_up, folder, buffer))
    return buffer.getvalue()


def pack_files(files: Mapping[str, tuple[int, bytes]], under: str) -> bytes:
    """A tar with these files (path -> mode and content, of a link its target) below the path `under`, readable by everybody."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (mode, content) in files.items():
            member = tarfile.TarInfo(f"{under}/{name}")
            member.mode = 0o755 if mode & stat.S_IXUSR else 0o644
            if stat.S_ISLNK(mode):
                member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(content)
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def open_up(folder: Path, packed: io.BytesIO, member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Readable for all; None for what is no file of the submission's own. Raises TooLargeError before a file is read that is too much."""
    if Path(member.name).name in LEFT_OUT or not (member.isfile() or member.isdir() or member.issym()):
        return None
    if packed.tell() + member.size > LIMIT_BYTES:
        raise TooLargeError(f"{folder} is larger than {LIMIT_BYTES >> 20} MiB")
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    is_program = member.isdir() or member.mode & stat.S_IXUSR
    member.mode = 0o755 if is_program else 0o644
    return member
