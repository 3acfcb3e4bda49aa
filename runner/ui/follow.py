"""What a run's history says while it still grows: answers a second and latencies, as the report will show them."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.growing import GrowingHistory
from runner.history import Record
from runner.timeline import Bucket, bucket_number


class Follower:
    """Reads the histories in a run's folder as far as they are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.origin_ns: int | None = None  # the begin of the first request seen; the report knows it better by an instant
        self._histories: dict[Path, GrowingHistory] = {}
        self._buckets: dict[int, Bucket] = defaultdict(Bucket)

    def read(self) -> list[dict[str, Any]]:
        """The points that have changed since the last time."""
        changed = set()
        for record in self._new_records():
            if self.origin_ns is None:
                self.origin_ns = record.start_ns
            number = bucket_number(record, self.origin_ns)
            self._buckets[number].add(record)
            changed.add(number)
        return [self._buckets[number].as_point(number) for number in sorted(changed)]

    def seconds_at(self, at_ns: int) -> float | None:
        """Where a moment (monotonic ns) stands in the charts; None before the first request."""
        return None if self.origin_ns is None else round((at_ns - self.origin_ns) / 1e9, 3)

    def _new_records(self) -> Iterator[Record]:
        for path in sorted(self.folder.glob("history*.jsonl")):
            yield from self._histories.setdefault(path, GrowingHistory(path)).new_records()
