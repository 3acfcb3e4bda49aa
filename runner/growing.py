"""A history that is still being written, read as far as it has come."""

import json
from collections.abc import Iterator
from pathlib import Path

from runner.history import Record, broken_line, read_record


class GrowingHistory:
    """The history at `path`, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._lines = 0

    def new_records(self) -> Iterator[Record]:
        """The requests of each whole line that came since the last time, in the order of their ends. Raises MachineError for a broken line."""
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
            try:
                row = json.loads(line)
                record = read_record(row, self._lines) if row.get("kind") is None else None
            except (ValueError, KeyError, AttributeError) as error:
                raise broken_line(self._path, self._lines, line, error) from None
            if record is not None:
                yield record
