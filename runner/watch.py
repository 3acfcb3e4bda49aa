"""`labs watch`: judges a learner's version again at each save. Servers, peers and load generator of the next run are up before the save comes."""

import contextlib
import os
import select
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.attempt import diff_file, text_files
from runner.checkout import shown_path
from runner.errors import LabsError
from runner.hints import next_hint
from runner.lab import Lab, copy_starter, my_folder
from runner.page import read_report
from runner.report import new_run_folder
from runner.verdict import CheckResult, Outcome

LOOK_EVERY_S = 0.1
SETTLED_S = 0.1  # an editor may write several files, or one in several steps
ENDED_WITHIN_S = 30.0
KEYS = "h hint   r run again   d diff against the starter   q quit"


class WarmRun:
    """A run that has everything up but the app, and waits to be told that the code is there."""

    def __init__(self, lab: Lab, backend: str) -> None:
        self.folder = new_run_folder(lab.name)
        argv = [sys.executable, "-m", "runner", "run", lab.name, f"--backend={backend}", f"--run-folder={self.folder}", "--brief", "--await-go"]
        # A session of its own: Ctrl-C is for us, and we pass it on.
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self._is_shown = threading.Event()  # from the go on
        self._is_stopped = False
        self._reader = threading.Thread(target=self._show, name="run-output", daemon=True)
        self._reader.start()

    def _show(self) -> None:
        """Pass on what it prints from the go on; before that it is of no interest, unless it ends."""
        assert self.process.stdout is not None
        held: list[bytes] = []
        for line in self.process.stdout:
            if self._is_shown.is_set():
                write(line)
            else:
                held.append(line)
        if self.process.wait() and not self._is_shown.is_set() and not self._is_stopped:
            for line in held:
                write(line)

    def go(self) -> dict[str, Any] | None:
        """Let it judge, and return its report; None when it came to none."""
        assert self.process.stdin is not None
        self._is_shown.set()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"go\n")
            self.process.stdin.flush()
        self.process.wait()
        self._reader.join()
        with contextlib.suppress(LabsError):
            return read_report(self.folder)
        return None

    def stop(self) -> None:
        """End it, and return when everything that it started is gone."""
        assert self.process.stdin is not None
        self._is_stopped = True
        if self._is_shown.is_set():
            self.process.terminate()  # in the middle of a judgement; its guard ends the rest
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # it waits for a word, and takes this for a no
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDED_WITHIN_S)
        self.process.kill()
        self.process.wait()
        self._reader.join()


def watch(lab: Lab, backend: str) -> int:
    """Until `q` or Ctrl-C; the exit code is the last verdict's."""
    copy_starter(lab)
    folder = my_folder(lab)
    last: dict[str, Any] | None = None
    warm: WarmRun | None = None
    try:
        with single_keys():
            known = snapshot(folder)
            print(f"watching {shown_path(folder)}/: save to judge it.   {KEYS}", flush=True)
            while True:
                warm = warm or WarmRun(lab, backend)
                key = read_key(LOOK_EVERY_S)
                now = snapshot(folder)
                if key == "q":
                    break
                if key == "h":
                    print(next_hint(lab), flush=True)
                elif key == "d":
                    print("\n".join(changes_from_starter(lab)) or "nothing differs from the starter", flush=True)
                elif key == "r" or now != known:
                    known = settle(folder)
                    if warm.process.poll() is not None:  # what it died of has been told, and may be mended now
                        warm = WarmRun(lab, backend)
                    report = warm.go()
                    for line in describe_change(last, report) if last and report else ():
                        print(line)
                    last = report or last
                    if report and report["verdict"] == Outcome.PASS.name:
                        print(f"next: make debrief NAME={lab.name}: why it works, and what it costs")
                    print(f"\nwatching {shown_path(folder)}/   {KEYS}", flush=True)
                    warm = None
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
    finally:
        if warm is not None:
            warm.stop()
    return int(Outcome[last["verdict"]]) if last else int(Outcome.PASS)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file with its time (ns) and size."""
    found = {}
    for name in text_files(folder) if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # an editor replaces files
            stat = (folder / name).stat()
            found[name] = (stat.st_mtime_ns, stat.st_size)
    return found


def settle(folder: Path) -> dict[str, tuple[int, int]]:
    """Wait until nothing has changed for a moment, and return what is there."""
    seen = snapshot(folder)
    while True:
        time.sleep(SETTLED_S)  # a file system tells of writes, not of the last one
        now = snapshot(folder)
        if now == seen:
            return now
        seen = now


@contextlib.contextmanager
def single_keys() -> Iterator[None]:
    """On a terminal, keys count without Enter meanwhile."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def read_key(timeout_s: float) -> str:
    """The key that was pressed, "" when none was; the end of the input is no key."""
    ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
    if not ready:
        return ""
    key = os.read(sys.stdin.fileno(), 1).decode(errors="replace")
    if not key:
        time.sleep(timeout_s)  # it is always ready from now on
    return key


def changes_from_starter(lab: Lab) -> Iterator[str]:
    """A diff from the starter to the learner's version."""
    starter, mine = lab.folder / "starter", my_folder(lab)
    for name in sorted(text_files(starter) | text_files(mine)):
        yield from diff_file(starter, mine, name)


def describe_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What is otherwise in the verdict than the last time: outcomes, and values that were compared."""
    old = {check["name"]: check for check in before["checks"]}
    lines = []
    for check in after["checks"]:
        then = old.get(check["name"])
        if then is None:
            continue
        if then["outcome"] != check["outcome"]:
            lines.append(f"{CheckResult(check['name'], Outcome.PASS).title}: {then['outcome']} -> {check['outcome']}")
        was = worst_values(then)
        for what, (value, limit) in worst_values(check).items():
            if what in was and round_off(was[what][0]) != round_off(value):
                lines.append(f"{what}: {round_off(was[what][0])} -> {round_off(value)} ({limit})")
    if lines:
        yield "since the last run"
        yield from (f"  {line}" for line in lines)


def worst_values(check: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """What was compared -> its value nearest to the limit, and the limit in words."""
    found: dict[str, tuple[float, str]] = {}
    for c in check["comparisons"]:
        limit = f"{'at most' if c['is_upper'] else 'at least'} {c['limit']:g}"
        nearest = max if c["is_upper"] else min
        found[c["what"]] = (nearest(c["value"], found[c["what"]][0]) if c["what"] in found else c["value"], limit)
    return found


def round_off(value: float) -> str:
    """Three digits are enough to see a change by."""
    return f"{value:.3g}"


def write(line: bytes) -> None:
    """Pass on a line as it is."""
    sys.stdout.buffer.write(line)
    sys.stdout.flush()
