"""Order per key, from what was applied in the order in which it was applied at the far end.

Versions of a key count from 1. An application may be repeated (a redelivery): its first one decides the order, all of them the
regress.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
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
        top = sent.get(key, 0) if sent is not None else max(seen, default=0)
        violation = compare_order(key, [version for version in range(1, top + 1) if (key, version) not in skipped], seen, tuple(versions))
        if violation:
            found.append(violation)
    return found


def compare_order(key: Hashable, due: list[int], seen: list[int], firsts: tuple[int, ...]) -> OutOfOrder | None:
    """The first place where `seen` differs from `due`."""
    for expected, version in zip(due, seen, strict=False):
        if expected != version:
            return OutOfOrder(key, expected if version in set(due) else None, version, firsts)
    if len(seen) > len(due):
        return OutOfOrder(key, None, seen[len(due)], firsts)
    if len(seen) < len(due):
        return OutOfOrder(key, due[len(seen)], None, firsts)
    return None


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
