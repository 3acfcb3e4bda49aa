"""The runner's side of the guard, with real processes."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.children import Children, Process, clean_environment
from runner.errors import MachineError
from runner.guard import LOG_HEAD_BYTES, LOG_TAIL_BYTES

FLOOD_BYTES = 200 << 20
FLOOD = f"""
import sys
for _ in range({FLOOD_BYTES // 10_000}):
    sys.stdout.write("x" * 9_999 + "\\n")
print("the last line")
"""


@pytest.fixture
def children(temporary: Path) -> Iterator[Children]:
    group = Children()
    yield group
    group.close()


@pytest.fixture
def spawn(children: Children, tmp_path: Path) -> Callable[..., Process]:
    """Start Python code under a name."""

    def start(code: str, name: str = "child") -> Process:
        argv = [sys.executable, "-c", code]
        return children.spawn(name, argv, env=clean_environment(tmp_path), cwd=tmp_path, log=tmp_path / f"{name}.log")

    return start


Spawn = Callable[..., Process]


def test_a_process_runs_in_a_session_and_folder_of_its_own(spawn: Spawn, tmp_path: Path) -> None:
    process = spawn("import os; print(os.getpid(), os.getsid(0), os.getcwd(), os.read(0, 1))")
    assert process.wait(10) == 0
    assert process.log.read_text() == f"{process.pid} {process.pid} {tmp_path} b''\n"


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_told(spawn: Spawn, code: int) -> None:
    assert spawn(f"raise SystemExit({code})").wait(10) == code


def test_a_signal_is_a_negative_exit_code(spawn: Spawn) -> None:
    process = spawn("import signal; print('up', flush=True); signal.pause()")
    assert process.wait(0) is None
    process.kill()
    assert process.exit_code == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)


def test_errors_and_output_go_to_one_log(spawn: Spawn) -> None:
    process = spawn("import sys; print('out', flush=True); print('error', file=sys.stderr, flush=True); print('end')")
    process.wait(10)
    assert process.log.read_text() == "out\nerror\nend\n"


def test_killing_and_signalling_what_has_ended_is_harmless(spawn: Spawn) -> None:
    process = spawn("pass")
    assert process.wait(10) == 0
    process.kill()
    process.signal(signal.SIGTERM)
    assert process.exit_code == 0


def test_a_stopped_process_can_be_killed(spawn: Spawn, eventually: Callable[..., Any]) -> None:
    process = spawn("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "it stands")
    process.kill()
    assert process.exit_code == -signal.SIGKILL


def test_exit_codes_go_by_number_since_pids_are_used_again(children: Children, spawn: Spawn, tmp_path: Path) -> None:
    first = spawn("raise SystemExit(5)")
    assert first.wait(10) == 5
    second = spawn("import signal; signal.pause()")
    # As it would be if the kernel gave the pid of the first to the second.
    namesake = Process(children, "first", first._number, second.pid, tmp_path / "log")
    assert namesake.exit_code == 5
    assert second.exit_code is None


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["no-such-program"], "no-such-program could not be started: No such file or directory: no-such-program"),
        (["./no-execute"], "./no-execute could not be started: Permission denied: ./no-execute"),
        (["./no-program"], "./no-program could not be started: Exec format error: ./no-program"),
        (["python", "nul\0byte"], "python could not be started: embedded null byte"),
    ],
)
def test_a_command_that_cannot_be_executed(children: Children, spawn: Spawn, tmp_path: Path, argv: list[str], complaint: str) -> None:
    (tmp_path / "no-execute").write_text("#!/bin/sh\n")
    (tmp_path / "no-program").write_text("x")
    (tmp_path / "no-program").chmod(0o755)
    with pytest.raises(MachineError) as caught:
        children.spawn(argv[0], argv, env=clean_environment(tmp_path), cwd=tmp_path, log=tmp_path / "log")
    assert str(caught.value) == complaint
    assert caught.value.hint == f"the command was: {' '.join(argv)}"
    assert spawn("pass").wait(10) == 0, "the guard goes on"


def test_a_command_that_cannot_be_executed_leaves_nothing_open(children: Children, spawn: Spawn, tmp_path: Path) -> None:
    assert spawn("pass").wait(10) == 0
    before = psutil.Process(children.guard_pid).num_fds()
    with pytest.raises(MachineError):
        children.spawn("no-such-program", ["no-such-program"], env=clean_environment(tmp_path), cwd=tmp_path, log=tmp_path / "log")
    assert psutil.Process(children.guard_pid).num_fds() == before


def test_a_folder_that_is_not_there(children: Children, spawn: Spawn, tmp_path: Path) -> None:
    for place in ({"cwd": tmp_path / "none", "log": tmp_path / "log"}, {"cwd": tmp_path, "log": tmp_path / "none" / "log"}):
        with pytest.raises(MachineError, match=r"No such file or directory: .*/none"):
            children.spawn("child", [sys.executable, "-c", ""], env=clean_environment(tmp_path), **place)
    assert spawn("pass").wait(10) == 0


def test_a_flood_of_output_is_kept_short_and_holds_nobody_up(spawn: Spawn) -> None:
    flood = spawn(FLOOD, "flood")
    served = 0
    while flood.exit_code is None:
        other = spawn("print('quick')", f"other-{served}")
        assert other.wait(10) == 0
        assert other.log.read_text() == "quick\n"
        served += 1
    assert served >= 2, "others wait until the flood is over"
    assert flood.wait(10) == 0
    text = flood.log.read_bytes()
    assert LOG_HEAD_BYTES + LOG_TAIL_BYTES <= len(text) < 9_000_000
    assert text.endswith(b"x\nthe last line\n")
    assert f"[... {FLOOD_BYTES // 10_000 * 10_000 + 14 - LOG_HEAD_BYTES - LOG_TAIL_BYTES} bytes dropped".encode() in text


def test_a_child_that_goes_on_printing_after_its_parents_end(spawn: Spawn, eventually: Callable[..., Any]) -> None:
    """The end of the parent is told at once; the orphan that holds its pipe gets no say in it, and does not hold the guard up."""
    process = spawn("import os\nif os.fork() == 0:\n    while True: os.write(1, b'y' * 10_000)\nprint('parent ends')")
    assert process.wait(10) == 0
    size = eventually(lambda: process.log.stat().st_size, "something printed")
    assert spawn("pass", "other").wait(10) == 0
    assert process.log.stat().st_size == size < 9_000_000


def test_many_that_end_at_once(children: Children, tmp_path: Path) -> None:
    """The end of a process and its last words often come to the guard in one look."""
    for attempt in range(10):
        group = [
            children.spawn("sh", ["/bin/sh", "-c", f"echo {n}; exit {n}"], env={}, cwd=tmp_path, log=tmp_path / f"{attempt}-{n}.log")
            for n in range(40)
        ]
        assert [process.wait(20) for process in group] == list(range(40))
        assert [process.log.read_text() for process in group] == [f"{n}\n" for n in range(40)]


def test_close_ends_all_and_removes_what_is_owned(children: Children, spawn: Spawn, tmp_path: Path) -> None:
    folder = tmp_path / "owned"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "file").touch()
    children.own(folder)
    process = spawn("import signal; signal.pause()")
    children.close()
    assert not folder.exists()
    assert not psutil.pid_exists(process.pid)
    children.close()  # a second time is harmless


def test_what_the_guard_runs_last_may_take_longer_than_an_answer(children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owned").mkdir()
    children.own(tmp_path / "owned")
    children.at_end(["/bin/sh", "-c", f"sleep 0.5; touch {tmp_path}/swept"], {"PATH": "/usr/bin:/bin"})
    monkeypatch.setattr("runner.children.ANSWER_WITHIN_S", 0.1)
    children.close()
    assert (tmp_path / "swept").exists()
    assert not (tmp_path / "owned").exists()


def test_a_guard_that_fails_ends_all_the_same(temporary: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    children = Children()
    (tmp_path / "owned").mkdir()
    children.own(tmp_path / "owned")
    argv = ["/bin/sh", "-c", "setsid sleep 600 & exec sleep 600"]
    process = children.spawn("sh", argv, env=clean_environment(tmp_path), cwd=tmp_path, log=tmp_path / "log")
    children.send({"do": "what nobody knows"})
    children._guard.wait(10)
    assert not psutil.pid_exists(process.pid)
    assert not (tmp_path / "owned").exists()
    assert "has no attribute 'do_what nobody knows'" in capfd.readouterr().err
    children.close()


def test_a_guard_that_was_killed_is_told(children: Children, spawn: Spawn) -> None:
    process = spawn("import signal; signal.pause()")
    children._guard.kill()
    children._guard.wait()
    for act in (lambda: process.wait(20), lambda: spawn("pass", "other"), process.kill):
        with pytest.raises(MachineError, match=r"the guard process (is gone|did not answer)") as caught:
            act()
        assert caught.value.hint == "was it killed? run again"


def test_the_environment_of_a_child_is_clean(monkeypatch: pytest.MonkeyPatch, spawn: Spawn, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")
    process = spawn("import os; print(*sorted(os.environ))")
    process.wait(10)
    seen = set(process.log.read_text().split()) - {"LC_CTYPE", "__CF_USER_TEXT_ENCODING"}  # Python's own, macOS's own
    assert seen == {"HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "TMPDIR"}
    environment = clean_environment(tmp_path)
    assert environment["HOME"] == environment["TMPDIR"] == str(tmp_path)
    found = subprocess.run(["python", "-c", "import sys; print(sys.prefix)"], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == sys.prefix, "`python` is this Python"
