"""The records of one load, and the questions that checks ask of them."""

import json
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from runner.errors import LabError, MachineError

Outcome = Literal["ok", "fail", "unknown"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
CANARY_SLEEP_NS = 10_000_000
CLIENT_ERROR, SERVER_ERROR = 400, 500
MISSING = object()


def nothing() -> Mapping[str, Any]:
    """An empty mapping that stays empty."""
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times are monotonic ns: right before the send, right after the body was read. Header names are lower case."""

    n: int
    user: int
    name: str
    method: str
    path: str
    replica: int | None
    start_ns: int
    end_ns: int
    intended_ns: int | None = None
    status: int | None = None
    failed: str | None = None
    context: Mapping[str, Any] = field(default_factory=nothing, hash=False)
    headers: Mapping[str, str] = field(default_factory=nothing, hash=False)
    body: Any = field(default=None, hash=False)

    @property
    def outcome(self) -> Outcome:
        """How it ended for its user. `unknown`: no answer or a 5xx. `fail`: answered, not as the contract says. Else `ok`.

        Source: the ok, fail and info of Jepsen's histories. What the operation did is another question: `effect`.
        """
        if self.status is None or self.status >= SERVER_ERROR:
            return "unknown"
        return "ok" if self.failed is None else "fail"

    @property
    def effect(self) -> Outcome:
        """What it did, for checks of effects: `ok` for a right 2xx, `fail` for a 4xx (refused, expected or not), else `unknown`.

        A 2xx that is not as the contract says is unknown here: its body may have been cut off by a kill.
        """
        if self.status is not None and CLIENT_ERROR <= self.status < SERVER_ERROR:
            return "fail"
        return "ok" if self.status is not None and 200 <= self.status < 300 and self.failed is None else "unknown"

    @property
    def latency_s(self) -> float:
        """From the send to the body's last byte, in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Stall:
    """The canary, asleep for 10 ms from `at_ns`, woke `stall_ns` too late: the load itself stood still."""

    at_ns: int
    stall_ns: int


@dataclass(frozen=True)
class History:
    """Records sorted by `start_ns`, with the stalls of the load around them."""

    records: tuple[Record, ...] = ()
    stalls: tuple[Stall, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", tuple(sorted(self.records, key=attrgetter("start_ns", "n"))))
        object.__setattr__(self, "stalls", tuple(self.stalls))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what the recorder wrote. A last line without its line break is left out: its writer was killed.

        Lines of a kind that is not known here are passed over. Raises MachineError for a missing file or a broken line.
        """
        try:
            *lines, _ = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            raise MachineError(f"no history at {path}: the load ended before it began to record", "its log is in the same folder") from None
        records: list[Record] = []
        stalls: list[Stall] = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                kind = row.get("kind")
                if kind == "stall":
                    stalls.append(Stall(row["at_ns"], row["stall_ns"]))
                elif kind is None:
                    records.append(read_record(row, number))
            except (ValueError, KeyError, AttributeError) as error:
                raise broken_line(path, number, line, error) from None
        return cls(tuple(records), tuple(stalls))

    def where(
        self,
        predicate: Callable[[Record], object] | None = None,
        *,
        name: str | None = None,
        outcome: Outcome | None = None,
        **context: object,
    ) -> Self:
        """The records for which all of it holds; `where(key="42")` compares with `record.context["key"]`, as JSON gave it back.

        Raises LabError for an outcome that does not exist.
        """
        if outcome is not None and outcome not in OUTCOMES:
            raise LabError(f"where(outcome={outcome!r}): no such outcome", f"one of {', '.join(OUTCOMES)}")
        wanted = context.items()
        return self._with(
            record
            for record in self.records
            if (name is None or record.name == name)
            and (outcome is None or record.outcome == outcome)
            and all(record.context.get(key, MISSING) == value for key, value in wanted)
            and (predicate is None or predicate(record))
        )

    def by(self, key: str | Callable[[Record], Hashable]) -> dict[Any, Self]:
        """A history for each value of a context key, or of a function, in order of first appearance.

        Records without that context key are left out.
        """
        groups: dict[Any, list[Record]] = {}
        for record in self.records:
            if callable(key):
                groups.setdefault(key(record), []).append(record)
            elif key in record.context:
                groups.setdefault(record.context[key], []).append(record)
        return {value: self._with(records) for value, records in groups.items()}

    def between(self, start_ns: int | None, end_ns: int | None) -> Self:
        """The records wholly inside [start_ns, end_ns]; None is open. Stalls are those that touch the window."""
        low, high = bounds(start_ns, end_ns)
        return self._within(low, high, (r for r in self.records if low <= r.start_ns and r.end_ns <= high))

    def touching(self, start_ns: int | None, end_ns: int | None) -> Self:
        """The records of which any part lies inside [start_ns, end_ns]; None is open."""
        low, high = bounds(start_ns, end_ns)
        return self._within(low, high, (r for r in self.records if r.start_ns <= high and low <= r.end_ns))

    def ok_share(self) -> float:
        """The share of `ok` in 0..1; 0 when there is no record, since nothing asked is no success."""
        return self.outcomes()["ok"] / len(self.records) if self.records else 0.0

    def outcomes(self) -> dict[Outcome, int]:
        """How many records ended in each way; all three keys are there."""
        counts = dict.fromkeys(OUTCOMES, 0)
        for record in self.records:
            counts[record.outcome] += 1
        return counts

    def percentile(self, q: float) -> float:
        """The nearest-rank quantile of `latency_s`, q in 0..1. Unanswered requests count with the time waited.

        Raises LabError when there is no record, or for q outside 0..1.
        """
        if not 0 <= q <= 1:
            raise LabError(f"percentile({q:g}): q is a share in 0..1", f"percentile({q / 100:g})?")
        if not self.records:
            raise LabError(f"percentile({q:g}) of a history without records", "call lab.require(...) on its length first")
        latencies = sorted(record.latency_s for record in self.records)
        # The slack keeps 0.07 * 100 == 7.000000000000001 at rank 7.
        return latencies[max(math.ceil(q * len(latencies) - 1e-9), 1) - 1]

    @property
    def longest_stall_s(self) -> float:
        """The canary's longest oversleep in seconds; 0 when it never overslept by more than the recorder tolerates."""
        return max((stall.stall_ns for stall in self.stalls), default=0) / 1e9

    @property
    def latest_departure_s(self) -> float:
        """How late the latest scheduled arrival left, in seconds; 0 when none did, or none was scheduled."""
        return max((r.start_ns - r.intended_ns for r in self.records if r.intended_ns is not None), default=0) / 1e9

    @property
    def duration_s(self) -> float:
        """From the first send to the last answer, in seconds."""
        return (max(r.end_ns for r in self.records) - self.records[0].start_ns) / 1e9 if self.records else 0.0

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def _with(self, records: Iterable[Record]) -> Self:
        return type(self)(tuple(records), self.stalls)

    def _within(self, low: float, high: float, records: Iterable[Record]) -> Self:
        stalls = tuple(s for s in self.stalls if s.at_ns <= high and low <= s.at_ns + CANARY_SLEEP_NS + s.stall_ns)
        return type(self)(tuple(records), stalls)


def read_record(row: Mapping[str, Any], number: int) -> Record:
    """A record from one line; `number`, the line's own, stands in for a missing `n`."""
    return Record(
        n=row.get("n", number),
        user=row["user"],
        name=row["name"],
        method=row["method"],
        path=row["path"],
        replica=row.get("replica"),
        start_ns=row["start_ns"],
        end_ns=row["end_ns"],
        intended_ns=row.get("intended_ns"),
        status=row.get("status"),
        failed=row.get("failed"),
        context=MappingProxyType(row.get("context") or {}),
        headers=MappingProxyType(row.get("headers") or {}),
        body=row.get("body"),
    )


def broken_line(path: Path, number: int, line: bytes, error: Exception) -> MachineError:
    """What is said of a line that no recorder has written whole."""
    shown = line[:80].decode(errors="replace")
    return MachineError(f"{path}, line {number} is no record of a request: {error!r}\n  | {shown}", "was the disk full?")


def bounds(start_ns: int | None, end_ns: int | None) -> tuple[float, float]:
    """Both ends of a window as numbers that compare."""
    return (-math.inf if start_ns is None else start_ns), (math.inf if end_ns is None else end_ns)
