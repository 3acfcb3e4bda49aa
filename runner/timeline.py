"""Requests in quarters of a second: the points of the charts, in the report and while a run goes on."""

import statistics
from collections.abc import Sequence
from typing import Any

from runner.history import OUTCOMES, Outcome, Record

BUCKET_S = 0.25
SHARES = (50, 95, 99)


class Bucket:
    """The requests that ended in one quarter of a second."""

    def __init__(self) -> None:
        self.counts: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)
        self.latencies_ms: list[float] = []

    def add(self, record: Record) -> None:
        """Count one."""
        self.counts[record.outcome] += 1
        self.latencies_ms.append(record.latency_s * 1000)

    def as_point(self, number: int) -> dict[str, Any]:
        """Its place in the charts: answers a second by how they ended, percentiles of latency in ms (None where nothing ended)."""
        rates: dict[str, float] = {outcome: count / BUCKET_S for outcome, count in self.counts.items()}
        shares: dict[str, float | None] = {f"p{share}": percentile(self.latencies_ms, share) for share in SHARES}
        return {"n": number, "t": round((number + 0.5) * BUCKET_S, 3), **rates, **shares}


def bucket_number(record: Record, start_ns: int) -> int:
    """In which bucket a request ended."""
    return max(int((record.end_ns - start_ns) / 1e9 / BUCKET_S), 0)


def draw_timeline(records: Sequence[Record], start_ns: int) -> dict[str, list[Any]]:
    """The columns of the charts: `t` in s from `start_ns`, `ok`, `fail` and `unknown` a second, `p50`, `p95` and `p99` in ms."""
    found: dict[int, Bucket] = {}
    for record in records:
        found.setdefault(bucket_number(record, start_ns), Bucket()).add(record)
    points = [found.get(number, Bucket()).as_point(number) for number in range(max(found, default=-1) + 1)]
    return {name: [point[name] for point in points] for name in ("t", *OUTCOMES, *(f"p{share}" for share in SHARES))}


def percentile(values: Sequence[float], share: int) -> float | None:
    """The `share`-th percentile, at least 0.1 so that a logarithm has it."""
    if not values:
        return None
    found = values[0] if len(values) == 1 else statistics.quantiles(values, n=100, method="inclusive")[share - 1]
    return round(max(found, 0.1), 2)
