"""What to do now: the next lab on the roadmap, and what a failure like this one usually comes from."""

from collections.abc import Collection, Sequence
from pathlib import Path

from runner.checkout import shown_path
from runner.lab import Lab
from runner.listing import Row, read_rows

MOST = 2


def choose_next(rows: Sequence[Row]) -> Row | None:
    """A lab that was begun, else the easiest of the earliest stage; None when all are passed."""
    begun = [row for row in rows if row.state in ("started", "failed")]
    still_new = [row for row in rows if row.state == "new"]
    last = max((row.stage or 0 for row in rows), default=0) + 1
    return min(begun or still_new, key=lambda row: (row.stage or last, row.difficulty, row.minutes, row.name), default=None)


def describe_next(root: Path) -> str:
    """What to do now, with its command."""
    rows, _ = read_rows(root)
    row = choose_next(rows)
    if row is None:
        return "You have passed every lab there is." if rows else "There are no labs yet."
    why = "begun, not passed" if row.state != "new" else f"{row.difficulty}/5, about {row.minutes} min"
    reading = shown_path(root / "labs" / row.topic / row.name / "README.md")
    return f"{row.name}: {row.title} ({why})\nread {reading}\nnext: make lab NAME={row.name}"


def likely_bugs(lab: Lab, failed: Collection[str]) -> list[str]:
    """What known wrong answers do that fail just these checks; the nearest first, none when there is no such one."""
    failed = set(failed)
    found = [w for w in lab.wrong.values() if set(w.fails) <= failed <= set(w.fails) | set(w.may_fail)]
    found.sort(key=lambda w: len(failed - set(w.fails)))
    return [w.bug for w in found][:MOST] if failed else []
