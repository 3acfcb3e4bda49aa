"""What is copied into a run's containers."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from runner.stack import cargo
from runner.stack.cargo import TooLargeError, pack, pack_files


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar}


def test_files_are_readable_by_all_and_owned_by_root(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("x")
    (tmp_path / "app.py").chmod(0o600)
    (tmp_path / "run.sh").write_text("x")
    (tmp_path / "run.sh").chmod(0o700)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "app.pyc").write_text("x")
    found = members(pack({"submission": tmp_path}))
    assert sorted(found) == ["submission", "submission/app.py", "submission/run.sh"]
    assert [found[f"submission/{name}"].mode for name in ("app.py", "run.sh")] == [0o644, 0o755]
    assert {(member.uid, member.uname) for member in found.values()} == {(0, "root")}


def test_what_is_no_file_is_left_out_and_links_stay_links(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    found = members(pack({"s": tmp_path}))
    assert "s/pipe" not in found
    assert found["s/link"].issym(), "what it points to is not copied"


@pytest.mark.parametrize("sizes", [[200], [60, 60, 60]])
def test_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    monkeypatch.setattr(cargo, "LIMIT_BYTES", 100)
    for number, size in enumerate(sizes):
        (tmp_path / f"file-{number}").write_bytes(b"x" * size)
    with pytest.raises(TooLargeError, match="is larger than"):
        pack({"s": tmp_path})


def test_what_is_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many files below the limit may be more than there is memory."""
    monkeypatch.setattr(cargo, "LIMIT_BYTES", 8 << 10)
    read: list[str] = []
    add = tarfile.TarFile.addfile

    def note(tar: tarfile.TarFile, member: tarfile.TarInfo, fileobj: Any = None) -> None:
        read.append(member.name)
        add(tar, member, fileobj)

    monkeypatch.setattr(tarfile.TarFile, "addfile", note)
    for number in range(9):
        (tmp_path / f"file-{number}").write_bytes(b"x" * (3 << 10))
    with pytest.raises(TooLargeError):
        pack({"s": tmp_path})
    assert len(read) < 4, "the folder, and two files at most"


def test_files_from_memory_are_packed_below_a_path() -> None:
    files = {"nginx.conf": (0o100600, b"events {}"), "bin/run": (0o100700, b"#!"), "link": (0o120777, b"bin/run")}
    with tarfile.open(fileobj=io.BytesIO(pack_files(files, "filled/app-1"))) as tar:
        seen = {member.name: (member.mode, member.uid) for member in tar if member.isfile()}
        assert seen == {"filled/app-1/nginx.conf": (0o644, 0), "filled/app-1/bin/run": (0o755, 0)}
        assert tar.getmember("filled/app-1/link").linkname == "bin/run"
        opened = tar.extractfile("filled/app-1/nginx.conf")
        assert opened is not None
        assert opened.read() == b"events {}"
