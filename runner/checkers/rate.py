"""Rate limits judged in every window at once, from the client's side and without blaming a slow network.

An allowed request was decided at some instant between its send and its receipt. So all those lying entirely inside [send_i,
recv_j] were decided inside it, and a limiter of `rate` and `burst` lets at most `burst + rate * (recv_j - send_i)` through. The
limiter's own window is never longer than that: slowness only loosens the limit.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ROUNDING = 1e-6  # requests; far above what doubles lose in an hour of ns, far below one request


@dataclass(frozen=True, slots=True)
class Window:
    """`count` requests, sent and answered within `start_ns`..`end_ns`; the `limit` for that long includes burst and slack."""

    start_ns: int
    end_ns: int
    count: int
    limit: float

    @property
    def excess(self) -> float:
        """Requests beyond the limit; negative when it was kept."""
        return self.count - self.limit

    @property
    def seconds(self) -> float:
        """How long the window is."""
        return (self.end_ns - self.start_ns) / 1e9

    def __str__(self) -> str:
        return f"{self.count} allowed in {self.seconds:.3f} s, at most {self.limit:.2f} may be"


@dataclass(frozen=True, slots=True)
class OverRate:
    """A key that got more than its rate, in its worst window."""

    key: Hashable
    worst: Window

    def __str__(self) -> str:
        return f"{self.key}: {self.worst}"


def find_over_rate(allowed: Mapping[Any, Iterable[tuple[int, int]]], rate_per_s: float, burst: float, slack: float = 0.0) -> list[OverRate]:
    """The keys whose worst window is over its limit, the worst first.

    `allowed[key]` holds (send_ns, recv_ns) of the requests known to be let through: to leave out one without an answer is safe.
    Leave out what a fault excuses, and judge the requests before and after it apart: a window that spans it is none of this
    check's.
    """
    worst = ((key, worst_window(spans, rate_per_s, burst, slack)) for key, spans in allowed.items())
    found = [OverRate(key, window) for key, window in worst if window is not None and window.excess > ROUNDING]
    return sorted(found, key=lambda violation: violation.worst.excess, reverse=True)


def worst_window(allowed: Iterable[tuple[int, int]], rate_per_s: float, burst: float, slack: float = 0.0) -> Window | None:
    """The window [send_i, recv_j] with the greatest excess over burst + slack + rate_per_s * length; None without requests.

    The limit is the arrival curve of a leaky bucket: Cruz, A Calculus for Network Delay, IEEE Trans. Information Theory 37(1)
    1991; GCRA in ITU-T I.371. O(n log n): receipts in ascending order, the sends in a tree of maxima. Raises ValueError for a
    receipt before its send.
    """
    requests = sorted(allowed)
    if not requests:
        return None
    origin = requests[0][0]
    tree = SuffixMaxima(len(requests))
    best = (-math.inf, 0, 0)
    for position in sorted(range(len(requests)), key=lambda i: requests[i][1]):
        send, recv = requests[position]
        if recv < send:
            raise ValueError(f"request ({send}, {recv}) was answered before it was sent")
        tree.add(position, rate_per_s * (send - origin) / 1e9)
        value, start = tree.top()
        best = max(best, (value - rate_per_s * (recv - origin) / 1e9, start, recv))
    _, start, recv = best
    send = requests[start][0]
    count = sum(1 for s, r in requests if s >= send and r <= recv)
    return Window(send, recv, count, burst + slack + rate_per_s * (recv - send) / 1e9)


class SuffixMaxima:
    """Over positions 0..n-1, of those added: the greatest `value at i + how many were added at i or after it`.

    A segment tree whose nodes hold how many were added below, and the best of their own positions with where it is.
    """

    def __init__(self, size: int) -> None:
        self.width = 1 << max(size - 1, 0).bit_length()
        self.added = [0] * (2 * self.width)
        self.best: list[tuple[float, int]] = [(-math.inf, 0)] * (2 * self.width)

    def add(self, position: int, value: float) -> None:
        """Add a position with its value."""
        node = position + self.width
        self.added[node] = 1
        self.best[node] = (value + 1, position)
        while node > 1:
            node //= 2
            left, right = 2 * node, 2 * node + 1
            self.added[node] = self.added[left] + self.added[right]
            value, position = self.best[left]
            self.best[node] = max((value + self.added[right], position), self.best[right])

    def top(self) -> tuple[float, int]:
        """The greatest value and its position."""
        return self.best[1]
