"""The guard: whatever way a run ends, its processes and temporary folders end with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.guard import LOG_HEAD_BYTES, LOG_TAIL_BYTES, Log, descendants

# A runner in small: it starts one child for each file of a folder, and then does what it is asked.
RUNNER = """
import sys
from pathlib import Path
from runner.children import Children, clean_environment

scripts, home, logs = map(Path, sys.argv[1:])
children = Children()
children.own(home)
env = {**clean_environment(home), "READY": str(logs)}
for script in sorted(scripts.iterdir()):
    children.spawn(script.stem, [sys.executable, str(script)], env=env, cwd=home, log=logs / f"{script.stem}.log")
print(children._guard.pid, flush=True)
while line := sys.stdin.readline():
    if line == "close\\n":
        children.close()
    else:
        children.spawn("late", [sys.executable, "-c", "import signal; signal.pause()"], env=env, cwd=home, log=logs / "late.log")
    print("done", flush=True)
"""
READY = "; open(os.path.join(os.environ['READY'], {name!r} + '.ready'), 'w').close()"
DIRECT = {
    "ignores_sigterm": "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN){ready}\nwhile True: signal.pause()",
    "stopped": "import os, signal{ready}\nos.kill(os.getpid(), signal.SIGSTOP)",
}
FLEEING = {
    "forks_twice": """
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid(){ready}
        while True: signal.pause()
    os._exit(0)
os.wait()
while True: signal.pause()
""",
    "leaves_children": """
import os, signal, subprocess, sys
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
for _ in range(2):
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    child.stdout.readline()
pass{ready}
""",
}
# Bounded, so that a guard that lets it go on does no harm to the machine.
BREEDS = """
import os, signal, time
for n in range(3000):
    if os.fork() == 0:
        while True: signal.pause()
    time.sleep(0.001)
    if n == 20:
        pass{ready}
while True: signal.pause()
"""
# ignores_sigterm 1, stopped 1, forks_twice 2, leaves_children 2; the runner and its guard live elsewhere.
ALL = 6


@pytest.fixture
def scene(tmp_path: Path, eventually: Callable[..., Any]) -> Iterator["Scene"]:
    one = Scene(tmp_path, eventually)
    yield one
    one.end()


class Scene:
    """A runner with its guard and children, seen from outside."""

    def __init__(self, folder: Path, eventually: Callable[..., Any]) -> None:
        self.folder = folder
        self.eventually = eventually
        self.home, self.logs, self.scripts = folder / "home", folder / "logs", folder / "scripts"
        for part in (self.home, self.logs, self.scripts):
            part.mkdir()
        (self.home / "data").mkdir()
        (self.home / "data" / "file").touch()

    def start(self, scripts: dict[str, str], alive: int = 0) -> None:
        """Start the runner and wait until each child has done what it does, and `alive` processes are left of that."""
        for name, script in scripts.items():
            (self.scripts / f"{name}.py").write_text(script.replace("{ready}", READY.format(name=name)))
        self.runner = subprocess.Popen(
            [sys.executable, "-c", RUNNER, str(self.scripts), str(self.home), str(self.logs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.guard = int(self.read())
        names = {f"{name}.ready" for name in scripts}
        self.eventually(lambda: names <= {path.name for path in self.logs.iterdir()}, "the children are ready")
        self.eventually(lambda: not alive or len(self.alive()) == alive, f"{alive} processes are alive")

    def read(self) -> str:
        assert self.runner.stdout is not None
        return self.runner.stdout.readline()

    def ask(self, order: str) -> None:
        """Have the runner `close`, or start a `late` child."""
        assert self.runner.stdin is not None
        self.runner.stdin.write(f"{order}\n")
        self.runner.stdin.flush()
        assert self.read() == "done\n"

    def alive(self) -> list[int]:
        """The pids of what lives in the owned folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def guard_is_gone(self) -> bool:
        return not psutil.pid_exists(self.guard) or psutil.Process(self.guard).status() == psutil.STATUS_ZOMBIE

    def end(self) -> None:
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        self.runner.kill()
        self.runner.wait()
        for pipe in (self.runner.stdin, self.runner.stdout):
            assert pipe is not None
            pipe.close()


def test_nothing_outlives_a_killed_runner(scene: Scene, eventually: Callable[..., Any]) -> None:
    scene.start(DIRECT | FLEEING, ALL)
    scene.runner.kill()
    eventually(lambda: not scene.alive() and scene.guard_is_gone() and not scene.home.exists(), "all of it is gone")


def test_nothing_outlives_a_normal_end(scene: Scene) -> None:
    scene.start(DIRECT | FLEEING, ALL)
    scene.ask("close")
    assert scene.alive() == [], "close() returns when all is done, not before"
    assert not scene.home.exists()
    assert scene.guard_is_gone()


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_guard_leaves_nothing(scene: Scene, eventually: Callable[..., Any], signo: signal.Signals) -> None:
    """SIGTERM is its end; what a terminal sends is for the runner to answer."""
    scene.start(DIRECT | FLEEING, ALL)
    os.kill(scene.guard, signo)
    if signo is not signal.SIGTERM:
        scene.ask("late")
        assert len(scene.alive()) == ALL + 1
        scene.runner.kill()
    eventually(lambda: not scene.alive() and not scene.home.exists(), "all of it is gone")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_direct_children_die_with_a_killed_guard(scene: Scene, eventually: Callable[..., Any]) -> None:
    scene.start(DIRECT, 2)
    os.kill(scene.guard, signal.SIGKILL)
    eventually(lambda: not scene.alive(), "the children are gone")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="without a subreaper some get away")
def test_a_child_that_goes_on_forking_is_ended(scene: Scene, eventually: Callable[..., Any]) -> None:
    """Some are born between the look at the list of processes and the kill of their parents."""
    scene.start({f"breeds_{n}": BREEDS for n in range(4)})
    scene.runner.kill()
    eventually(lambda: not scene.alive() and scene.guard_is_gone() and not scene.home.exists(), "all of it is gone")


def test_descendants_are_found_by_the_parents_the_kernel_reports() -> None:
    script = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert {child.pid, grandchild} <= set(descendants(os.getpid()))
        assert descendants(child.pid) == [grandchild]
        child.communicate("\n")
    assert descendants(child.pid) == []


# Log


def test_a_short_log_is_kept_as_it_came(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"))
    log.write(b"one\n")
    log.write(b"two\n")
    log.settle()
    os.close(log.fd)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_long_log_keeps_head_and_tail(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"))
    line = b"%015d\n"
    count = (LOG_HEAD_BYTES + 10 * LOG_TAIL_BYTES) // 16
    for start in range(0, count, 1000):
        log.write(b"".join(line % n for n in range(start, min(start + 1000, count))))
    log.settle()
    os.close(log.fd)
    head, note, tail = (
        (tmp_path / "log")
        .read_bytes()
        .partition(f"\n[... {9 * LOG_TAIL_BYTES} bytes dropped: the log is limited to {LOG_HEAD_BYTES} ...]\n".encode())
    )
    assert note
    assert head == b"".join(line % n for n in range(LOG_HEAD_BYTES // 16))
    assert tail == b"".join(line % n for n in range(count - LOG_TAIL_BYTES // 16, count))


def test_a_restart_goes_on_in_the_same_log(tmp_path: Path) -> None:
    """The limit holds over all of a process's lives, and its last words are kept each time."""
    for life in (b"first", b"second", b"third"):
        log = Log(str(tmp_path / "log"))
        log.write(b"x" * LOG_HEAD_BYTES + life + b"\n")
        log.settle()
        os.close(log.fd)
    text = (tmp_path / "log").read_bytes()
    assert len(text) < LOG_HEAD_BYTES + 4 * LOG_TAIL_BYTES
    assert all(life in text for life in (b"first", b"second", b"third"))
