"""What a run's history says while it still grows: answers a second and latencies, as the report will show them."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.history import Record, read_record
from runner.timeline import Bucket, bucket_number


class Follower:
    """Reads the histories in a run's folder as far as they are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.origin_ns: int | None = None  # the begin of the first request seen; the report knows it better by an instant
        self.requests = 0
        self._offsets: dict[Path, int] = defaultdict(int)
        self._buckets: dict[int, Bucket] = defaultdict(Bucket)

    def read(self) -> list[dict[str, Any]]:
        """The points that have changed since the last time."""
        changed = set()
        for record in self._new_records():
            self.requests += 1
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
        """The requests of each whole line that came since."""
        for path in sorted(self.folder.glob("history*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._offsets[path])
                lines = file.read().rpartition(b"\n")[0]
            if not lines:
                continue
            self._offsets[path] += len(lines) + 1
            for number, line in enumerate(lines.split(b"\n")):
                row = json.loads(line)
                if "kind" not in row:
                    yield read_record(row, number)
