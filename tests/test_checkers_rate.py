"""Rate windows: right limiters are never blamed whatever the latency, wrong ones are found, and brute force agrees."""

import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runner.checkers.rate import ROUNDING, find_over_rate, worst_window

proven = settings(max_examples=100, deadline=None, derandomize=True)
SECOND = 1_000_000_000
Spans = list[tuple[int, int]]
Limiter = Callable[[list[int], int, int], list[bool]]

arrivals = st.lists(
    st.tuples(st.integers(0, SECOND // 3), st.integers(0, SECOND // 2), st.integers(0, SECOND // 2)),  # gap, way there, way back
    max_size=60,
)
rates = st.integers(1, 20)
bursts = st.integers(1, 5)


def token_bucket(times: list[int], rate: int, burst: int) -> list[bool]:
    """In whole billionths of a token, so that no rounding is blamed on it."""
    tokens, last, allowed = burst * SECOND, 0, []
    for now in times:
        tokens, last = min(burst * SECOND, tokens + rate * (now - last)), now
        allowed.append(tokens >= SECOND)
        tokens -= SECOND * allowed[-1]
    return allowed


def sliding_log(times: list[int], rate: int, burst: int) -> list[bool]:
    """At most `burst` in any half-open window of burst / rate seconds."""
    log: deque[int] = deque()
    allowed = []
    for now in times:
        while log and (now - log[0]) * rate >= burst * SECOND:
            log.popleft()
        allowed.append(len(log) < burst)
        if allowed[-1]:
            log.append(now)
    return allowed


def fixed_window(times: list[int], rate: int) -> list[bool]:
    counts: dict[int, int] = {}
    allowed = []
    for now in times:
        window = now // SECOND
        counts[window] = counts.get(window, 0) + 1
        allowed.append(counts[window] <= rate)
    return allowed


@proven
@given(arrivals, rates, bursts, st.sampled_from([token_bucket, sliding_log]))
def test_a_right_limiter_is_never_blamed(arrivals: list[tuple[int, int, int]], rate: int, burst: int, limiter: Limiter) -> None:
    times, now = [], 0
    for gap, _, _ in arrivals:
        now += gap
        times.append(now)
    verdicts = limiter(times, rate, burst)
    allowed = [(t - there, t + back) for t, (_, there, back), yes in zip(times, arrivals, verdicts, strict=True) if yes]
    assert find_over_rate({"k": allowed}, rate, burst) == []


def allowed_by_edge_burst(random: Random, replicas: int) -> Spans:
    """25 requests on each side of the edge of a second, against a fixed window of 10 in each replica."""
    times = sorted(random.randint(int(0.9 * SECOND), int(1.1 * SECOND)) for _ in range(50))
    lanes = [times[i::replicas] for i in range(replicas)]
    passed = [t for lane in lanes for t, yes in zip(lane, fixed_window(lane, 10), strict=True) if yes]
    return [(t, t + random.randint(0, SECOND // 50)) for t in passed]


@proven
@given(st.randoms(use_true_random=False), st.sampled_from([1, 2]))
def test_a_fixed_window_and_a_limiter_per_process_are_found(random: Random, replicas: int) -> None:
    allowed = allowed_by_edge_burst(random, replicas)
    assume(len(allowed) >= 16)
    found = find_over_rate({"edge": allowed, "calm": allowed[:10]}, rate_per_s=10, burst=10, slack=2)
    assert [v.key for v in found] == ["edge"]


quarters = st.tuples(st.integers(0, 8), st.integers(0, 4)).map(lambda p: (p[0] * SECOND // 4, (p[0] + p[1]) * SECOND // 4))
spans = st.lists(quarters, min_size=1, max_size=9)


def excess_by_definition(allowed: Spans, rate: int, burst: int, slack: int) -> Fraction:
    """Over every pair i, j whose window holds a request."""
    best = None
    for send, _ in allowed:
        for _, recv in allowed:
            count = sum(1 for s, r in allowed if send <= s and r <= recv)
            if count:
                excess = count - burst - slack - Fraction(rate * (recv - send), SECOND)
                best = excess if best is None else max(best, excess)
    assert best is not None
    return best


@proven
@given(spans, rates, bursts, st.integers(0, 2))
def test_the_worst_window_is_that_of_every_pair(allowed: Spans, rate: int, burst: int, slack: int) -> None:
    worst = worst_window(allowed, rate, burst, slack)
    assert worst is not None
    assert worst.excess == pytest.approx(float(excess_by_definition(allowed, rate, burst, slack)), abs=ROUNDING)
    assert worst.count == sum(1 for s, r in allowed if worst.start_ns <= s and r <= worst.end_ns)
    assert worst.limit == pytest.approx(burst + slack + rate * worst.seconds)


@proven
@given(spans, rates, st.integers(0, SECOND), st.integers(0, SECOND))
def test_slowness_only_loosens_the_limit(allowed: Spans, rate: int, there: int, back: int) -> None:
    swift = worst_window(allowed, rate, 1)
    slow = worst_window([(s - there, r + back) for s, r in allowed], rate, 1)
    assert swift is not None
    assert slow is not None
    assert slow.excess <= swift.excess + ROUNDING


def test_a_limit_that_is_met_exactly_is_kept() -> None:
    assert find_over_rate({"k": [(i * SECOND // 10, i * SECOND // 10) for i in range(1000)]}, rate_per_s=10, burst=1) == []


def test_one_request_a_little_too_early_is_found() -> None:
    times = [i * SECOND // 10 for i in range(1000)]
    times[500:] = [t - SECOND // 100 for t in times[500:]]
    assert [v.key for v in find_over_rate({"k": [(t, t) for t in times]}, rate_per_s=10, burst=1)] == ["k"]


def test_a_violation_names_the_key_the_count_and_the_window() -> None:
    found = find_over_rate({"k7": [(SECOND, SECOND + SECOND // 2)] * 18 + [(0, 5 * SECOND)]}, rate_per_s=10, burst=10, slack=2)
    assert [str(v) for v in found] == ["k7: 18 allowed in 0.500 s, at most 17.00 may be"]


def test_no_request_is_no_window() -> None:
    assert worst_window([], 10, 10) is None
    assert find_over_rate({"k": []}, 10, 10) == []


def test_an_answer_before_its_request_is_refused() -> None:
    with pytest.raises(ValueError, match="answered before it was sent"):
        worst_window([(5, 4)], 10, 10)


def test_two_thousand_requests_of_a_key_are_judged_in_half_a_second() -> None:
    random = Random(7)
    allowed = [(t, t + random.randint(0, SECOND // 5)) for t in (random.randint(0, 15 * SECOND) for _ in range(2000))]
    start = time.process_time()
    assert worst_window(allowed, 10, 10) is not None
    assert time.process_time() - start < 0.5
