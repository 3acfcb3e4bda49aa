"""`labs watch`: a verdict at each save."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from runner.watch import describe_change, snapshot, worst_values

if TYPE_CHECKING:
    from conftest import Kit

Processes = Callable[[], list[psutil.Process]]


def heed_interrupts() -> None:
    """What runs in a shell's background has Ctrl-C ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Watching:
    """`labs watch hits` on a terminal of its own: what it has printed, and its keys."""

    def __init__(self, kit: "Kit") -> None:
        self.terminal, theirs = pty.openpty()
        argv = [sys.executable, "-m", "runner", "watch", "hits"]
        self.process = subprocess.Popen(
            argv,
            cwd=kit.root,
            env=kit.environment,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=heed_interrupts,  # noqa: PLW1509 - a signal disposition, no more
        )
        os.close(theirs)
        self.text = ""
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line.decode()

    def press(self, key: str) -> None:
        os.write(self.terminal, key.encode())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        os.close(self.terminal)


@pytest.fixture
def watching(kit: "Kit") -> Iterator[Watching]:
    one = Watching(kit)
    yield one
    one.end()


def is_warm(processes: Processes) -> bool:
    """Whether a run stands ready: the last that it starts ahead, the app's Python, is there."""
    for process in processes():
        with contextlib.suppress(psutil.Error):  # it may end while we look
            if any(word.endswith("/prestart.py") for word in process.cmdline()):
                return True
    return False


def test_each_save_is_judged_and_what_changed_is_said(watching: Watching, kit: "Kit", eventually: Callable[..., Any], processes: Processes) -> None:
    eventually(lambda: "save to judge it" in watching.text, "the greeting")
    eventually(lambda: is_warm(processes), "the first warm run")
    mine = kit.root / "my" / "hits" / "app.py"
    mine.write_text(mine.read_text() + "\n# saved\n")
    eventually(lambda: "FAIL  hits   mine" in watching.text and "watching my/hits/   h hint" in watching.text, "the verdict of the starter", 30)
    eventually(lambda: is_warm(processes), "the second warm run")
    mine.write_text((kit.lab("hits") / "solution" / "app.py").read_text())
    eventually(lambda: "PASS  hits   mine" in watching.text, "the verdict of the solution", 30)
    eventually(lambda: "next: make debrief NAME=hits: " in watching.text, "what to do after a PASS")
    eventually(lambda: "every hit is counted: FAIL -> PASS\n  hits counted: 10 -> 20 (at least 20)" in watching.text, "what changed")
    watching.press("d")
    eventually(lambda: "+++ my/hits/app.py" in watching.text, "the diff")
    watching.press("r")
    eventually(lambda: watching.text.count("PASS  hits   mine") == 2, "the verdict again", 30)
    watching.press("q")
    assert watching.process.wait(30) == 0


def test_ctrl_c_ends_it(watching: Watching, eventually: Callable[..., Any], processes: Processes) -> None:
    eventually(lambda: is_warm(processes), "the first warm run")
    watching.process.send_signal(signal.SIGINT)
    assert watching.process.wait(30) == 0, "nothing was judged"
    eventually(lambda: not processes(), "the end of all it started")


def test_a_killed_watcher_leaves_nothing(watching: Watching, eventually: Callable[..., Any], processes: Processes) -> None:
    eventually(lambda: is_warm(processes), "the first warm run")
    watching.process.kill()
    watching.process.wait()
    eventually(lambda: not processes(), "the end of all it started")


def test_a_save_is_judged_where_the_run_that_stood_ready_had_died(kit: "Kit", eventually: Callable[..., Any]) -> None:
    kit.edit("microservices/hits/test_lab.py", "import pytest", "import pytest\nimport no_such_module")
    watching = Watching(kit)
    try:
        eventually(lambda: "No module named 'no_such_module'" in watching.text, "why it died", 30)
        kit.edit("microservices/hits/test_lab.py", "import no_such_module", "")
        mine = kit.root / "my" / "hits" / "app.py"
        mine.write_text(mine.read_text() + "\n# saved\n")
        eventually(lambda: "FAIL  hits   mine" in watching.text, "the verdict", 30)
    finally:
        watching.end()


def check(outcome: str, **values: float) -> dict[str, Any]:
    comparisons = [{"what": what, "value": value, "limit": 2.0, "is_upper": True} for what, value in values.items()]
    return {"name": "test_a_thing", "outcome": outcome, "comparisons": comparisons}


def test_what_changed() -> None:
    before, after = {"checks": [check("FAIL", loads=14, age=1.0)]}, {"checks": [check("PASS", loads=1, age=1.0001)]}
    assert list(describe_change(before, after)) == ["since the last run", "  a thing: FAIL -> PASS", "  loads: 14 -> 1 (at most 2)"]
    assert list(describe_change(after, after)) == []
    assert list(describe_change({"checks": []}, after)) == []


def test_the_worst_of_several_values_counts() -> None:
    one = check("PASS", loads=1)
    one["comparisons"] += check("PASS", loads=2)["comparisons"]
    assert worst_values(one) == {"loads": (2, "at most 2")}


def test_a_file_that_is_replaced_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app.py").write_text("x")
    assert list(snapshot(tmp_path)) == ["app.py"]
    monkeypatch.setattr("runner.watch.text_files", lambda _: {"app.py", ".app.py.swp"})  # it was there a moment ago
    assert list(snapshot(tmp_path)) == ["app.py"]
    assert snapshot(tmp_path / "gone") == {}
