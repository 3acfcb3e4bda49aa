"""Order per key, from what was applied in the order in which it was applied at the far end.

Versions of a key count from 1. An application may be repeated (a redelivery): its first one decides the order, all of them the
regress.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

SHOWN_VERSIONS = 12


@dataclass(frozen=True, slots=True)
class OutOfOrder:
    """Where the first applications of a key leave 1..n: `seen` (None: nothing) came where `expected` (None: nothing) was due."""

    key: Hashable
    expected: int | None
    seen: int | None
    first_applications: tuple[int, ...]

    def __str__(self) -> str:
        if self.expected is None:
            what = f"{self.seen} was applied and never sent"
        elif self.seen is None:
            what = f"{self.expected} was never applied"
        elif self.seen < 1:
            what = f"{self.seen} was applied, and versions count from 1"
        elif self.expected in self.first_applications:
            what = f"{self.seen} was applied before {self.expected}"
        else:
            what = f"{self.seen} was applied, {self.expected} never"
        return f"{self.key}: {what} ({shorten(self.first_applications)})"


@dataclass(frozen=True, slots=True)
class Regression:
    """The version of one key fell from `before` to `after`; `position` counts the applications of all keys from 0."""

    key: Hashable
    before: int
    after: int
    position: int

    def __str__(self) -> str:
        return f"{self.key}: version fell from {self.before} to {self.after}"


def find_out_of_order(
    applied: Iterable[tuple[Hashable, int]],
    sent: Mapping[Any, int] | None = None,
    unknown: Collection[tuple[Hashable, int]] = (),
) -> list[OutOfOrder]:
    """The keys whose first applications are not exactly 1..n in order, one violation a key.

    `applied` is (key, version) in order of application. `sent[key]` is n, the highest version that was sent and acknowledged;
    without `sent`, n is the highest version applied, so only order and gaps are judged. A version in `unknown`, whose sender
    saw no answer and went on, may be missing and may come at any place: it is left out of both sides. A client that repeats
    until it is acknowledged leaves nothing unknown. Source: per-partition order, Kafka documentation, "Guarantees".
    """
    skipped = set(unknown)
    firsts: dict[Hashable, dict[int, None]] = {key: {} for key in sent or ()}
    for key, version in applied:
        firsts.setdefault(key, {}).setdefault(version)
    found = []
    for key, versions in firsts.items():
        seen = [version for version in versions if (key, version) not in skipped]
        top = None if sent is None else sent.get(key, 0)
        violation = compare_order(key, top, skipped, seen, tuple(versions))
        if violation:
            found.append(violation)
    return found


def compare_order(
    key: Hashable, top: int | None, skipped: Collection[tuple[Hashable, int]], seen: Iterable[int], firsts: tuple[int, ...]
) -> OutOfOrder | None:
    """The first place where `seen` leaves 1..`top` without the skipped ones; None: nobody knows where it ends.

    It is counted up, never written out: a version is what the app says, and may be a time in nanoseconds.
    """
    numbers = (number for number in count(1) if (key, number) not in skipped)
    for version, due in zip(seen, numbers, strict=False):
        if version != due or (top is not None and due > top):
            was_sent = top is None or 1 <= version <= top
            return OutOfOrder(key, due if was_sent else None, version, firsts)
    due = next(numbers)
    return None if top is None or due > top else OutOfOrder(key, due, None, firsts)


def find_regressions(applied: Iterable[tuple[Hashable, int]]) -> list[Regression]:
    """Each place where the version of a key decreases, repeated applications included.

    Nothing is excused as unknown: whoever applies an event sees its version, whatever its sender knew.
    """
    last: dict[Hashable, int] = {}
    found = []
    for position, (key, version) in enumerate(applied):
        before = last.get(key)
        if before is not None and version < before:
            found.append(Regression(key, before, version, position))
        last[key] = version
    return found


def shorten(versions: tuple[int, ...]) -> str:
    """The first versions, as a person reads them."""
    more = ", ..." if len(versions) > SHOWN_VERSIONS else ""
    return ", ".join(map(str, versions[:SHOWN_VERSIONS])) + more if versions else "nothing applied"
