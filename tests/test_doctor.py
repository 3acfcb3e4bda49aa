"""`labs doctor`: what it finds on a machine after a run that was killed, and that it removes nothing else."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from docker.errors import DockerException

from runner.children import FOLDER_PREFIX, OWNER_FILE
from runner.doctor import NAMELESS_S, examine, orphaned_folders, size_of
from runner.owner import owner_of

if TYPE_CHECKING:
    from conftest import Kit

    Done = subprocess.CompletedProcess[str]


@pytest.fixture
def doctor(kit: "Kit") -> "Callable[..., Done]":
    """`labs doctor` on a machine without an engine, whose place for temporary files is the test's own."""
    return partial(kit.labs, "doctor", DOCKER_HOST=f"unix://{kit.root}/engine.sock", LABS_CACHE_DIR=str(kit.root / "cache"))


def test_a_doctor_finds_nothing_wrong(kit: "Kit", doctor: "Callable[..., Done]") -> None:
    done = doctor()
    assert done.returncode == 0, done
    assert str(kit.root) in done.stdout
    assert "docker     no Docker engine answers at " in done.stdout
    assert done.stdout.endswith("\nleft over  nothing\n")
    assert not (kit.root / "cache").exists(), "a look makes nothing"


def test_what_a_killed_guard_left_is_found_and_removed(
    kit: "Kit", doctor: "Callable[..., Done]", processes: Callable[[], list[psutil.Process]], eventually: Callable[..., Any]
) -> None:
    run = kit.start("run", "hits", kit.submission("leaves-children-and-idles"), "--keep")
    assert run.stdout is not None
    assert any("kept up until Ctrl-C" in line for line in run.stdout)
    assert doctor().stdout.endswith("\nleft over  nothing\n"), "a run under way"
    runner = psutil.Process(run.pid)
    (guard,) = (child for child in runner.children() if any(word.endswith("guard.py") for word in child.cmdline()))
    for process in (runner, guard):
        process.suspend()  # both are stopped before either can act on the other's end
    for process in (guard, runner):
        process.send_signal(signal.SIGKILL)
    run.wait(10)
    eventually(lambda: len(processes()) == 3 and not psutil.pid_exists(guard.pid), "the end of all but the three that forked twice")
    found = doctor()
    assert found.returncode == 1, found
    assert found.stdout.count("\nleft over  process ") == 3
    assert found.stdout.count("\nleft over  folder ") == len(list(kit.temporary.iterdir()))
    assert "next: `labs doctor --fix`" in found.stdout
    mended = doctor("--fix")
    assert mended.returncode == 0, mended
    assert mended.stdout.endswith("\nremoved\n")
    assert processes() == []
    assert list(kit.temporary.iterdir()) == []


# Its parts, in this process


@pytest.fixture
def alone(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No engine and no cache; the place for temporary files, which is the test's own."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    monkeypatch.setenv("LABS_CACHE_DIR", str(tmp_path / "cache"))
    return temporary


def make_folder(path: Path, owner: bytes | None = None, age_s: float = 2 * NAMELESS_S) -> None:
    """A folder in the place for temporary files, and what it says of its owner."""
    path.mkdir()
    if owner is not None:
        (path / OWNER_FILE).write_bytes(owner)
    os.utime(path, (time.time() - age_s,) * 2)


def test_folders_of_other_programs_and_of_living_runs_are_left_alone(temporary: Path) -> None:
    host, _, pid, started = owner_of(os.getpid()).split("|")
    for name in ("labs-mine", "labs-run", "backend-labs", "backend-labs-main"):
        make_folder(temporary / name)
    for name, owner in {
        "living": owner_of(os.getpid()).encode(),
        "elsewhere": b"elsewhere|boot|1|1.00",
        "dead": f"{host}|another boot|{pid}|{started}".encode(),
        "nameless": None,
        "empty": b"",
        "broken": b"\xff\xfe",
    }.items():
        make_folder(temporary / f"{FOLDER_PREFIX}{name}", owner)
    make_folder(temporary / f"{FOLDER_PREFIX}new", age_s=0)
    make_folder(temporary / f"{FOLDER_PREFIX}new-and-empty", b"", age_s=0)
    assert {folder.name.removeprefix(FOLDER_PREFIX) for folder in orphaned_folders()} == {"dead", "nameless", "empty", "broken"}
    for folder in temporary.iterdir():
        shutil.rmtree(folder)


def test_what_cannot_be_removed_is_told(alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = alone / f"{FOLDER_PREFIX}old"
    make_folder(folder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as when it lies on a disk that is read-only now
        assert examine(fix=True) == 1
    assert capsys.readouterr().out.endswith(f"\nremoved, but for folder {folder}\n")
    assert examine(fix=True) == 0
    assert capsys.readouterr().out.endswith("\nremoved\n")


def test_a_process_that_ends_meanwhile_does_no_harm(alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        ended = psutil.Process(child.pid)
    monkeypatch.setattr("runner.doctor.orphaned_processes", lambda: [ended])
    assert examine(fix=False) == 1
    assert "left over  process" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError("read timed out"), "the Docker engine did not say which images it has: read timed out"),
        (DockerException("500 Server Error"), "the Docker engine has failed: 500 Server Error"),
    ],
)
def test_an_engine_that_fails_is_told(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, told: str
) -> None:
    def fail(**_: object) -> None:
        raise error

    engine = SimpleNamespace(version=lambda: {"Version": "29"}, api=SimpleNamespace(images=fail))
    monkeypatch.setattr("runner.stack.engine.connect_engine", lambda **_: engine)
    assert examine(fix=False) == 0
    assert f"docker     {told}\n" in capsys.readouterr().out


def test_a_file_that_is_gone_meanwhile_has_no_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server").write_bytes(b"12345")
    monkeypatch.setattr(os, "walk", lambda _: [(str(tmp_path), [], ["server", "server.part"])])
    assert size_of(tmp_path) == 5
