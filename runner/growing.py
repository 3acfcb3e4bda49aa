"""A history that is still being written, read as far as it has come."""

import json
from collections.abc import Iterator
from pathlib import Path

from runner.history import Record, read_record


class GrowingHistory:
    """The history at `path`, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._lines = 0

    def new_records(self) -> Iterator[Record]:
        """The requests of each whole line that came since the last time, in the order of their ends."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                lines = file.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            return
        if not lines:
            return
        self._offset += len(lines) + 1
        for line in lines.split(b"\n"):
            self._lines += 1
            row = json.loads(line)
            if "kind" not in row:
                yield read_record(row, self._lines)
