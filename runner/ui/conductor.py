"""Runs one lab at a time in a child process, and tells who looks on what happens."""

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from runner.checkout import find_root
from runner.errors import LabsError
from runner.lab import Lab
from runner.page import read_report
from runner.report import new_run_folder
from runner.ui.follow import Follower
from runner.verdict import CheckResult, Outcome

LOOK_EVERY_S = 0.4  # the cores belong to the run
ENDED_WITHIN_S = 20.0
NARRATED = re.compile(r"^ +\d+\.\d s  (.+)$")


class BusyError(LabsError):
    """A run is under way, and there is one at a time."""


class LiveRun:
    """A run and its events: `line`, `points`, `mark`, and in the end `end`."""

    def __init__(self, lab: Lab, submission: str, folder: Path, process: Process) -> None:
        self.lab, self.submission, self.folder = lab.name, submission, folder
        self.is_over = self.is_stopped = False
        self._process = process
        self._events: list[str] = []
        self._changed = asyncio.Condition()
        self._has_ended = asyncio.Event()
        self._follower = Follower(folder)
        self._task = asyncio.create_task(self._follow())

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.folder.name

    async def events(self, after: int) -> AsyncIterator[tuple[int, str]]:
        """Its events from number `after` on, as (number, JSON), until the last."""
        while not (self.is_over and after >= len(self._events)):
            async with self._changed:
                while not self.is_over and after >= len(self._events):
                    await self._changed.wait()
            for event in self._events[after:]:
                after += 1
                yield after, event

    async def stop(self) -> None:
        """End it, and return when all that it started is gone."""
        self.is_stopped = not self.is_over
        # As Ctrl-C it ends in order; where that is ignored (a shell's background), its guard ends the rest.
        for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self._process.returncode is None:
                self._process.send_signal(signo)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), ENDED_WITHIN_S)
        await self._task

    async def _follow(self) -> None:
        """Tell what happens until it has ended."""
        charts = asyncio.create_task(self._draw())
        try:
            async for line in self._lines():
                await self._hear(line.decode(errors="replace").rstrip())
            await self._process.wait()
        finally:
            self._has_ended.set()  # cancelled, its thread would go on reading beside the last look
            await asyncio.wait([charts])
            with contextlib.suppress(OSError, ValueError, KeyError):  # whatever is wrong with the history, the run is over
                await self._tell("points", points=await asyncio.to_thread(self._follower.read))
            await self._tell("end", **self._outcome())

    async def _lines(self) -> AsyncIterator[bytes]:
        """What it prints, line by line; of one that is too long only the end: who stopped reading would stop the run."""
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:
                continue
            if not line:
                return
            yield line

    async def _hear(self, line: str) -> None:
        """One line that it printed."""
        await self._tell("line", text=line)
        narrated = NARRATED.match(line)
        seconds = self._follower.seconds_at(time.monotonic_ns())
        if narrated and seconds is not None:
            await self._tell("mark", t=seconds, what=narrated[1])

    async def _draw(self) -> None:
        """Tell the points of the charts, now and then."""
        while not self._has_ended.is_set():
            if points := await asyncio.to_thread(self._follower.read):
                await self._tell("points", points=points)
            with contextlib.suppress(TimeoutError):  # a file system tells of no growth
                await asyncio.wait_for(self._has_ended.wait(), LOOK_EVERY_S)

    async def _tell(self, kind: str, **values: Any) -> None:
        async with self._changed:
            self._events.append(json.dumps({"kind": kind, **values}))
            self.is_over = kind == "end"
            self._changed.notify_all()

    def _outcome(self) -> dict[str, Any]:
        """What it came to."""
        try:
            report = read_report(self.folder)
        except LabsError:
            word = "STOPPED" if self.is_stopped else Outcome.ERROR.name
            return {"verdict": word, "checks": [], "facts": "it came to no verdict"}
        checks = [
            {"title": CheckResult(c["name"], Outcome.PASS).title, **{key: c[key] for key in ("outcome", "promised", "seen", "why", "hint")}}
            for c in report["checks"]
        ]
        facts = f"{report['requests']} requests, {report['unanswered']} without an answer, {report['load_s']:.1f} s of load, seed {report['seed']}"
        has_page = (self.folder / "report.html").exists()
        return {"verdict": report["verdict"], "checks": checks, "facts": facts, "report": f"/runs/{self.id}/report.html" if has_page else None}


class Conductor:
    """The one run that there may be."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.current: LiveRun | None = None  # under way, or the last one
        self._starting = asyncio.Lock()

    @property
    def is_busy(self) -> bool:
        """Whether a run is under way."""
        return self.current is not None and not self.current.is_over

    async def start(self, lab: Lab, submission: str) -> LiveRun:
        """Start a run. Raises BusyError while another one is under way."""
        async with self._starting:
            if self.current is not None and self.is_busy:
                message = f"{self.current.lab} ({self.current.submission}) is running, and there is one run at a time"
                raise BusyError(message, "wait for its verdict, or stop it")
            folder = new_run_folder(lab.name)
            argv = ["run", lab.name, f"--submission={submission}", f"--backend={self.backend}", f"--run-folder={folder}", "--brief"]
            # A session of its own: Ctrl-C is for us, and we pass it on.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "runner",
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                cwd=find_root(),
                start_new_session=True,
                limit=1 << 20,
            )
            self.current = LiveRun(lab, submission, folder, process)
            return self.current

    async def stop(self) -> None:
        """End the run that is under way, if any."""
        if self.current is not None:
            await self.current.stop()
