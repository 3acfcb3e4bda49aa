"""What a run leaves behind: the verdict on the terminal and `report.json` beside the logs."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from runner import __version__
from runner.checkout import find_root, shown_path
from runner.errors import LabError, MachineError
from runner.verdict import CheckResult, Outcome, Verdict

if TYPE_CHECKING:
    from runner.run import Run

SCHEMA = 1
BEYOND_MEASURE = 1e300
INDENT = " " * 6


@dataclass(frozen=True)
class Report:
    """One judged run, as it is printed and stored."""

    lab: str
    submission: str
    kind: str
    backend: str
    seed: int
    folder: Path
    verdict: Verdict
    seconds: float
    load_s: float
    incident_s: float
    requests: int
    unanswered: int
    longest_stall_s: float
    cpu_wait_share: float
    events: list[dict[str, Any]]

    @classmethod
    def of(cls, run: "Run", verdict: Verdict, seconds: float) -> Self:
        """The report of a run that has ended; `seconds` is the wall time since the command began."""
        records = [record for load in run.loads for record in load.history.records]
        return cls(
            lab=run.lab.name,
            submission=run.submission.name,
            kind=run.submission.kind,
            backend=run.backend.name,
            seed=run.seed,
            folder=run.folder,
            verdict=verdict,
            seconds=seconds,
            load_s=sum(load.seconds for load in run.loads),
            incident_s=run.incident_s,
            requests=len(records),
            unanswered=sum(1 for record in records if record.status is None),
            longest_stall_s=max((load.history.longest_stall_s for load in run.loads), default=0.0),
            cpu_wait_share=max((load.cpu_wait_share for load in run.loads), default=0.0),
            events=run.events,
        )

    def as_json(self) -> dict[str, Any]:
        """The stored form; `schema` grows when a field changes its meaning."""
        return {
            "schema": SCHEMA,
            "version": __version__,
            "lab": self.lab,
            "submission": self.submission,
            "kind": self.kind,
            "backend": self.backend,
            "seed": self.seed,
            "verdict": self.verdict.outcome.name,
            "seconds": round(self.seconds, 3),
            "load_s": round(self.load_s, 3),
            "incident_s": round(self.incident_s, 3),
            "requests": self.requests,
            "unanswered": self.unanswered,
            "longest_stall_s": round(self.longest_stall_s, 4),
            "cpu_wait_share": round(self.cpu_wait_share, 3),
            "events": self.events,
            "checks": [
                {
                    "name": c.name,
                    "outcome": c.outcome.name,
                    "promised": c.promised,
                    "seen": c.seen,
                    "why": c.why,
                    "hint": c.hint,
                    "blame": c.blame,
                    "seconds": round(c.seconds, 3),
                    "comparisons": [
                        {"what": x.what, "value": storable(x.value), "limit": storable(x.limit), "is_upper": x.is_upper, "margin": finite(x.margin)}
                        for x in c.comparisons
                    ],
                }
                for c in self.verdict.checks
            ],
        }


def finite(number: float) -> float | None:
    """JSON has no infinity."""
    return round(number, 3) if math.isfinite(number) else None


def storable(value: float) -> float:
    """JSON has neither infinity nor NaN: a number beyond all measure stands for them."""
    return value if math.isfinite(value) else math.copysign(BEYOND_MEASURE, value)


def write_report(report: Report) -> None:
    """Write report.json into the run's folder, whole or not at all. Raises MachineError."""
    path = report.folder / "report.json"
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps(report.as_json(), indent=1) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise MachineError(f"the report cannot be written: {error}", "is the disk full, or read-only?") from error


def print_verdict(report: Report, write: Callable[[str], object]) -> None:
    """The verdict as a person reads it: failed checks with what was promised, seen and why; the others in one line."""
    verdict = report.verdict
    write(f"{verdict.outcome.name}  {report.lab}   {report.submission}   {report.backend}   seed {report.seed}")
    same: set[str] = set()
    for check in verdict.checks:
        if check.outcome is Outcome.PASS or (check.blame and check.seen in same):
            continue
        same.add(check.seen)
        for line in check_lines(check):
            write(line)
    if any(check.outcome is not Outcome.PASS for check in verdict.checks):
        write(f"{INDENT}look at   {shown_path(report.folder)}/report.html")
    passed = [f"ok {check.title}" for check in verdict.checks if check.outcome is Outcome.PASS]
    for line in wrapped(passed):
        write(f"  {line}")
    times = f"{report.load_s:.1f} s of load"
    if report.incident_s > report.load_s + 0.5:
        times += f" in {report.incident_s:.1f} s of incident"
    write(f"  {report.requests} requests, {report.unanswered} without an answer, {times}, {report.seconds:.1f} s in all")


def check_lines(check: CheckResult) -> list[str]:
    """A check that did not pass, in lines."""
    seen = check.seen.splitlines() or ["(no message)"]
    if check.blame:
        head = {
            "app": "x the app did not hold up",
            "lab": "! the lab is broken",
            "machine": "! the machine or the kit is in the way",
        }
        lines = [f"  {head[check.blame]}", *(f"{INDENT}{line}" for line in seen)]
        return [*lines, "", f"{INDENT}hint: {check.hint}"] if check.hint else lines
    mark = "x" if check.outcome is Outcome.FAIL else "?"
    lines = [f"  {mark} {check.title}", f"{INDENT}promised  {check.promised}", f"{INDENT}seen      {seen[0]}"]
    lines += [f"{INDENT}          {line}" for line in seen[1:]]
    if check.outcome is Outcome.FAIL:
        lines.append(f"{INDENT}why       {check.why}")
    return lines


def wrapped(parts: list[str], width: int = 110) -> list[str]:
    """Short parts, several a line."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += "   " + part
        else:
            lines.append(part)
    return lines


def new_run_folder(name: str) -> Path:
    """A folder for one run under `.labs/runs`, that no other run has. Raises MachineError, LabError after a thousand in one second."""
    runs = find_root() / ".labs" / "runs"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ["", *(f"-{n}" for n in range(2, 1000))]:
        folder = runs / f"{stamp}-{name}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise MachineError(f"the run's folder cannot be made: {error}", "is the disk full, or read-only?") from error
        return folder
    raise LabError(f"{runs} has a thousand runs of this second")


def claim_run_folder(chosen: Path) -> Path:
    """The folder that was asked for, as an absolute path; it is made if need be. Raises MachineError, and LabError when a run was judged in it.

    Another run's logs would be added to, its further histories would enter the page, and its verdict would stand where this run comes to none.
    """
    try:
        chosen.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{shown_path(chosen)} cannot be made: {error}", "is the disk full, or read-only?") from error
    if (chosen / "report.json").exists():
        raise LabError(f"{shown_path(chosen)} holds the report of another run", "remove it, or say another --run-folder")
    return chosen.absolute()
