"""From the results of the checks to the verdict of a run. Pure."""

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


class Outcome(enum.IntEnum):
    """What a run, or one check of it, came to; the value is the exit code."""

    PASS = 0
    FAIL = 1
    INCONCLUSIVE = 2
    ERROR = 3


WORST_FIRST = (Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)


@dataclass(frozen=True)
class Comparison:
    """A value that a check compared with its limit."""

    what: str
    value: float
    limit: float
    is_upper: bool

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of its limit; at the limit is right."""
        return self.value <= self.limit if self.is_upper else self.value >= self.limit

    @property
    def margin(self) -> float:
        """How many times the value is away from the limit: above 1 it holds, below 1 it does not, 2 and 0.5 are the house rule."""
        small, large = (self.value, self.limit) if self.is_upper else (self.limit, self.value)
        if small <= 0:
            return float("inf") if large > 0 or self.holds else 0.0
        return large / small


@dataclass(frozen=True)
class CheckResult:
    """One check: what it promised, and what was seen."""

    name: str
    outcome: Outcome
    promised: str = ""
    why: str = ""
    seen: str = ""
    hint: str = ""
    blame: str = ""  # "" | "app" (did not start, died, kept a server from serving) | "lab" | "machine"
    comparisons: Sequence[Comparison] = field(default_factory=tuple)
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """`test_origin_loads_stay_in_budget` as words."""
        return self.name.removeprefix("test_").replace("_", " ")


@dataclass(frozen=True)
class Verdict:
    """What is said of a run as a whole."""

    outcome: Outcome
    checks: Sequence[CheckResult]

    @property
    def failed(self) -> set[str]:
        """The names of the checks that failed by what they saw."""
        return {c.name for c in self.checks if c.outcome is Outcome.FAIL and not c.blame}


def worst_of(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst, in the order ERROR, FAIL, INCONCLUSIVE, PASS; ERROR when there is none."""
    return min(outcomes, key=WORST_FIRST.index, default=Outcome.ERROR)


def decide_verdict(checks: Iterable[CheckResult]) -> Verdict:
    """The worst of all; no check at all is an ERROR.

    A failed check stands on what it saw, even where another could not judge.
    """
    results = list(checks)
    return Verdict(worst_of(check.outcome for check in results), results)


def read_promise(docstring: str | None) -> tuple[str, str]:
    """A check's docstring as (promised, why): what stands before `Why:`, and what after it."""
    promised, _, why = (docstring or "").partition("Why:")
    return " ".join(promised.split()), " ".join(why.split())


def read_seen(message: str) -> str:
    """An assertion's message without pytest's own explanation of the expression."""
    return re.split(r"\nassert ", "\n" + message.removeprefix("AssertionError: "))[0].strip()
