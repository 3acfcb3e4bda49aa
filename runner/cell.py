"""One cell of a verification: a submission of a lab, judged once, beside what lab.toml says that it must come to."""

import re
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.lab import Lab


@dataclass(frozen=True)
class Expectation:
    """What one submission must come to."""

    submission: str
    fails: frozenset[str]
    may_fail: frozenset[str]

    def judge(self, report: dict[str, Any]) -> str:
        """What is wrong with a report of this submission; "" when it is as declared."""
        failed = {c["name"] for c in report["checks"] if c["outcome"] == "FAIL" and not c["blame"]}
        blamed = [c for c in report["checks"] if c["blame"]]
        if blamed:
            return f"{report['verdict']}, not judged by a check: {blamed[0]['seen'].splitlines()[0]}"
        if not self.fails:
            return "" if report["verdict"] == "PASS" else describe(report)
        if report["verdict"] != "FAIL":
            said = [f": {c['seen'].splitlines()[0]}" for c in report["checks"] if c["name"] in self.fails and c["seen"]]
            return f"{report['verdict']}, should fail {names(self.fails)}{''.join(said[:1])}"
        if missed := self.fails - failed:
            return f"not caught by {names(missed)}"
        if extra := failed - self.fails - self.may_fail:
            return f"failed {names(extra)}, which lab.toml does not say"
        return ""


@dataclass
class Cell:
    """One submission of one lab, once."""

    lab: Lab
    expectation: Expectation
    attempt: int
    problem: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    folder: Path | None = None

    @property
    def title(self) -> str:
        """`cache-stampede wrong/immortal-lock #2`."""
        return f"{self.lab.name} {self.expectation.submission}" + (f" #{self.attempt}" if self.attempt > 1 else "")


def describe(report: dict[str, Any]) -> str:
    """A verdict that should have been PASS, with its first reason."""
    first = next((c for c in report["checks"] if c["outcome"] != "PASS"), None)
    if first is None:
        return str(report["verdict"])
    seen = first["seen"].splitlines() or ["(no message)"]
    return f"{report['verdict']}: {first['name']}: {seen[0]}"


def names(checks: Set[str]) -> str:
    """Check names in a line."""
    return ", ".join(sorted(checks))


def writable(words: str) -> str:
    """Words of an app, question marks in the place of what neither a terminal nor XML takes (XML 1.0, 2.2; so no half of a surrogate pair)."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", words)
