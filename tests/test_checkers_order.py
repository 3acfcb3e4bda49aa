"""Per-key order: right sinks are never blamed, and each known defect is found."""

from collections.abc import Hashable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.checkers.order import OutOfOrder, Regression, find_out_of_order, find_regressions

proven = settings(max_examples=100, deadline=None, derandomize=True)
sizes = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 6), max_size=4)
Applied = list[tuple[Hashable, int]]


def interleave(random: Random, lanes: dict[str, list[int]]) -> Applied:
    """Any order across keys that keeps the order within each."""
    turns = [key for key, versions in lanes.items() for _ in versions]
    random.shuffle(turns)
    rest = {key: iter(versions) for key, versions in lanes.items()}
    return [(key, next(rest[key])) for key in turns]


def redeliver(random: Random, n: int) -> list[int]:
    """A consumer that dies between its effect and its commit, and starts again from the last committed version."""
    applied: list[int] = []
    committed = 0
    while committed < n:
        reached = random.randint(committed + 1, n)
        applied += range(committed + 1, reached + 1)
        committed = random.randint(committed, reached)
    return applied


@proven
@given(sizes, st.randoms(use_true_random=False))
def test_a_sink_with_redeliveries_keeps_the_order(sizes: dict[str, int], random: Random) -> None:
    applied = interleave(random, {key: redeliver(random, n) for key, n in sizes.items()})
    assert find_out_of_order(applied, dict(sizes)) == []
    assert find_out_of_order(applied) == []


@proven
@given(sizes, st.randoms(use_true_random=False))
def test_unknown_events_may_be_missing_or_come_anywhere(sizes: dict[str, int], random: Random) -> None:
    unknown = {(key, version) for key, n in sizes.items() for version in range(1, n + 2) if random.random() < 0.3}
    lanes = {key: [v for v in range(1, n + 1) if (key, v) not in unknown] for key, n in sizes.items()}
    for key, version in sorted(unknown):
        if random.random() < 0.5:
            lanes[key].insert(random.randint(0, len(lanes[key])), version)
    applied = interleave(random, lanes)
    assert find_out_of_order(applied, dict(sizes), unknown) == []
    assert find_out_of_order(applied, unknown=unknown) == []


@proven
@given(sizes, st.randoms(use_true_random=False))
def test_a_sink_that_checks_versions_never_regresses(sizes: dict[str, int], random: Random) -> None:
    version: dict[Hashable, int] = {}
    applied: Applied = []
    for key, offered in interleave(random, {key: redeliver(random, n) for key, n in sizes.items()}):
        if offered >= version.get(key, 0):
            version[key] = offered
            applied.append((key, offered))
    assert find_regressions(applied) == []


@proven
@given(st.integers(2, 8), st.data())
def test_two_events_that_changed_places_are_found(n: int, data: st.DataObject) -> None:
    early = data.draw(st.integers(1, n - 1))
    applied: Applied = [("a", v) for v in range(1, n + 1)]
    applied[early - 1 : early + 1] = reversed(applied[early - 1 : early + 1])
    assert [str(v).split(" (")[0] for v in find_out_of_order(applied, {"a": n})] == [f"a: {early + 1} was applied before {early}"]
    assert find_regressions(applied) == [Regression("a", early + 1, early, early)]


@proven
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4)), max_size=7), st.integers(0, 4), st.integers(0, 4))
def test_both_agree_with_their_definitions(applied: Applied, a: int, b: int) -> None:
    sent: dict[Hashable, int] = {"a": a, "b": b}
    lanes = {key: [version for k, version in applied if k == key] for key in sent}
    wrong = {key for key, n in sent.items() if list(dict.fromkeys(lanes[key])) != list(range(1, n + 1))}
    assert {violation.key for violation in find_out_of_order(applied, sent)} == wrong
    fallen = {key for key, lane in lanes.items() if lane != sorted(lane)}
    assert {violation.key for violation in find_regressions(applied)} == fallen


@pytest.mark.parametrize(
    ("applied", "sent", "said"),
    [
        ([1, 3, 2], 3, "o: 3 was applied before 2 (1, 3, 2)"),
        ([1, 3], 3, "o: 3 was applied, 2 never (1, 3)"),
        ([1, 2], 3, "o: 3 was never applied (1, 2)"),
        ([], 1, "o: 1 was never applied (nothing applied)"),
        ([1, 2], 1, "o: 2 was applied and never sent (1, 2)"),
        ([7, 1], 1, "o: 7 was applied and never sent (7, 1)"),
    ],
)
def test_a_violation_says_what_came_in_whose_place(applied: list[int], sent: int, said: str) -> None:
    assert [str(v) for v in find_out_of_order([("o", version) for version in applied], {"o": sent})] == [said]


@pytest.mark.parametrize(
    ("applied", "said"),
    [
        ([1, 3], "o: 3 was applied, 2 never (1, 3)"),
        ([1, 10**18], f"o: {10**18} was applied, 2 never (1, {10**18})"),  # a time is no version, and no reason to count up to it
        ([1, 2, 0], "o: 0 was applied, and versions count from 1 (1, 2, 0)"),
        ([-1, 1], "o: -1 was applied, and versions count from 1 (-1, 1)"),
    ],
)
def test_of_what_was_sent_nothing_is_said_where_nobody_knows_it(applied: list[int], said: str) -> None:
    assert [str(v) for v in find_out_of_order([("o", version) for version in applied])] == [said]


def test_a_key_that_nobody_sent_is_found() -> None:
    assert find_out_of_order([("ghost", 1)], {}) == [OutOfOrder("ghost", None, 1, (1,))]


def test_a_lost_acknowledgement_sent_again_is_a_regress_and_no_disorder() -> None:
    applied: Applied = [("o", v) for v in (5, 6, 5, 6)]
    assert [str(v) for v in find_regressions(applied)] == ["o: version fell from 6 to 5"]
    assert find_out_of_order([("o", v) for v in (1, 2, 3, 4)] + applied, {"o": 6}) == []
