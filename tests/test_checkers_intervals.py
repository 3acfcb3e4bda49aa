"""Mutual exclusion and concurrency: against brute force over every instant, and a simulated lock."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.checkers.intervals import Overlap, Section, find_overlaps, peak_keys, peak_overlap

proven = settings(max_examples=100, deadline=None, derandomize=True)
intervals = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)).map(lambda p: (p[0], p[0] + p[1])), max_size=8)
HALF_INSTANTS = range(32)


def count_at(intervals: list[tuple[int, int]], half: int) -> int:
    """How many are under way at `half` / 2: those that it lies strictly inside, and one of no length."""
    inside = sum(1 for start, end in intervals if 2 * start < half < 2 * end)
    return inside + any(2 * start == 2 * end == half for start, end in intervals)


@proven
@given(intervals)
def test_the_peak_is_that_of_every_instant(intervals: list[tuple[int, int]]) -> None:
    assert peak_overlap(intervals) == max(count_at(intervals, half) for half in HALF_INSTANTS)


@proven
@given(st.lists(intervals, max_size=4))
def test_the_peak_of_keys_counts_each_key_once(lanes: list[list[tuple[int, int]]]) -> None:
    sections = [Section(key, *span) for key, lane in enumerate(lanes) for span in lane]
    assert peak_keys(sections) == max(count_keys_at(lanes, half) for half in HALF_INSTANTS)


def count_keys_at(lanes: list[list[tuple[int, int]]], half: int) -> int:
    idle = [lane for lane in lanes if not any(2 * start < half < 2 * end for start, end in lane)]
    return len(lanes) - len(idle) + any(2 * start == 2 * end == half for lane in idle for start, end in lane)


holds = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=12)


def lock(holds: list[tuple[str, int, int]]) -> list[Section]:
    """A right lock: each waits for the one before it on the same key, and may enter the instant it has left."""
    free: dict[str, int] = {}
    sections = []
    for holder, (key, idle, length) in enumerate(holds):
        start = free.get(key, 0) + idle
        free[key] = start + length
        sections.append(Section(key, start, free[key], f"w{holder}"))
    return sections


@proven
@given(holds)
def test_a_right_lock_is_never_blamed(holds: list[tuple[str, int, int]]) -> None:
    assert find_overlaps(lock(holds)) == []


@proven
@given(holds, st.data())
def test_a_holder_that_came_too_early_is_found(holds: list[tuple[str, int, int]], data: st.DataObject) -> None:
    sections = lock(holds)
    victim = data.draw(st.sampled_from(sections))
    early = Section(victim.key, victim.end_ns - 1, victim.end_ns + data.draw(st.integers(0, 9)), "intruder")
    found = find_overlaps([*sections, early])
    assert [(v.key, v.peak) for v in found] == [(victim.key, 2)]
    assert {"intruder"} < set(found[0].holders)


@proven
@given(st.lists(intervals, max_size=3), st.integers(1, 3))
def test_overlaps_agree_with_the_peak_of_each_key(lanes: list[list[tuple[int, int]]], at_most: int) -> None:
    sections = [Section(key, *span, holder=number) for key, lane in enumerate(lanes) for number, span in enumerate(lane)]
    found = find_overlaps(sections, at_most)
    peaks = {key: peak_overlap(lane) for key, lane in enumerate(lanes)}
    assert {v.key: v.peak for v in found} == {key: peak for key, peak in peaks.items() if peak > at_most}
    assert all(len(v.holders) == v.peak for v in found)


def test_touching_sections_do_not_overlap() -> None:
    assert peak_overlap([(0, 5), (5, 9)]) == 1
    assert find_overlaps([Section("k", 5, 9), Section("k", 0, 5)]) == []
    assert peak_overlap([]) == 0
    assert peak_keys([Section("a", 0, 5), Section("a", 5, 9), Section("b", 5, 5)]) == 1


def test_an_overlap_names_the_key_the_peak_and_the_holders() -> None:
    found = find_overlaps([Section("inv-7", 0, 10, "w1"), Section("inv-7", 4, 6, "w2"), Section("inv-8", 4, 6, "w3")])
    assert found == [Overlap("inv-7", 2, 1, 4, ("w1", "w2"))]
    assert str(found[0]) == "inv-7: 2 at once (w1, w2), at most 1 allowed"
    assert str(find_overlaps([Section("k", 0, 2)] * 3, at_most=2)[0]) == "k: 3 at once, at most 2 allowed"


def test_an_interval_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5, 4\) ends before it starts"):
        peak_overlap([(5, 4)])
