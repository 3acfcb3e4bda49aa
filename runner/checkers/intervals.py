"""Mutual exclusion and concurrency, from the intervals in which something was held or under way.

An interval must be one that certainly was: measured inside the resource (a peer's arrival to its answer), or from 'acquired'
answered to 'release' sent. Then an overlap found here is real. Touching ends do not overlap, so a slow clock cannot make one
either.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from operator import attrgetter

END, POINT, START = range(3)  # the order in which things happen at one instant: an interval that ends there is over


@dataclass(frozen=True, slots=True)
class Section:
    """`holder` had `key` from `start_ns` to `end_ns`, on one clock. One whose end is not known has no place here."""

    key: Hashable
    start_ns: int
    end_ns: int
    holder: object = None


@dataclass(frozen=True, slots=True)
class Overlap:
    """More sections of one key at once than may be: the high-water mark, when it was first reached, and by whom."""

    key: Hashable
    peak: int
    at_most: int
    at_ns: int
    holders: tuple[object, ...]

    def __str__(self) -> str:
        named = [str(holder) for holder in self.holders if holder is not None]
        who = f" ({', '.join(named[:6])}{', ...' if len(named) > 6 else ''})" if named else ""
        return f"{self.key}: {self.peak} at once{who}, at most {self.at_most} allowed"


def find_overlaps(sections: Iterable[Section], at_most: int = 1) -> list[Overlap]:
    """The keys of which more than `at_most` sections overlap, one violation a key, the worst first.

    Definition: sections overlap when there is an instant strictly inside all of them. Source: Dijkstra, Solution of a Problem
    in Concurrent Programming Control, CACM 8(9) 1965 (mutual exclusion). Raises ValueError for a section that ends before it
    starts.
    """
    found = []
    for key, own in group_by_key(sections).items():
        peak, at_ns = high_water((section.start_ns, section.end_ns) for section in own)
        if peak > at_most:
            found.append(Overlap(key, peak, at_most, at_ns, holders_at(own, at_ns, peak)))
    return sorted(found, key=attrgetter("peak"), reverse=True)


def peak_overlap(intervals: Iterable[tuple[int, int]]) -> int:
    """The most intervals (start, end) under way at one instant; 0 for none. Touching ends do not overlap.

    An interval of no length counts for itself and overlaps those that it lies strictly inside. Raises ValueError for an end
    before its start.
    """
    return high_water(intervals)[0]


def peak_keys(sections: Iterable[Section]) -> int:
    """The most different keys with a section under way at one instant: how parallel the work really was."""
    merged: list[tuple[int, int]] = []
    for own in group_by_key(sections).values():
        merged += merge_intervals((section.start_ns, section.end_ns) for section in own)
    return peak_overlap(merged)


def high_water(intervals: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The peak and the instant from which it first held; (0, 0) for no intervals."""
    events: list[tuple[int, int]] = []
    for start, end in intervals:
        if end < start:
            raise ValueError(f"interval ({start}, {end}) ends before it starts")
        events += [(start, POINT)] if start == end else [(start, START), (end, END)]
    events.sort()
    active = peak = at = 0
    for instant, kind in events:
        if kind == END:
            active -= 1
            continue
        if active + 1 > peak:
            peak, at = active + 1, instant
        active += kind == START
    return peak, at


def holders_at(sections: Iterable[Section], at_ns: int, peak: int) -> tuple[object, ...]:
    """Who made the peak at `at_ns`, in order of entry."""
    own = sorted(sections, key=attrgetter("start_ns"))
    inside = [s for s in own if s.start_ns <= at_ns < s.end_ns]
    if len(inside) < peak:  # a section of no length made it: with those that it lies strictly inside
        inside = [s for s in own if s.start_ns < at_ns < s.end_ns] + [s for s in own if s.start_ns == s.end_ns == at_ns][:1]
    return tuple(section.holder for section in inside)


def merge_intervals(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union as intervals that do not overlap, though they may touch."""
    union: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if union and start < union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], end))
        else:
            union.append((start, end))
    return union


def group_by_key(sections: Iterable[Section]) -> dict[Hashable, list[Section]]:
    """Sections by their key, in order of first appearance."""
    groups: dict[Hashable, list[Section]] = {}
    for section in sections:
        groups.setdefault(section.key, []).append(section)
    return groups
