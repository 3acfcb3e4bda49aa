"""Exactly-once effects: right systems are never blamed, and each known defect is found."""

from collections.abc import Hashable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.checkers import describe_violations
from runner.checkers.delivery import Duplicated, Invented, Lost, check_exactly_once, find_duplicated, find_invented, find_lost

proven = settings(max_examples=100, deadline=None, derandomize=True)
outcomes = st.lists(st.sampled_from(["ok", "unknown", "fail"]), min_size=1, max_size=12)


def deliver(random: Random, outcomes: list[str]) -> tuple[list[int], list[int], list[int]]:
    """A right system: what it acked is applied once, what it never answered once or not at all, in any order."""
    acked = [i for i, outcome in enumerate(outcomes) if outcome == "ok"]
    unknown = [i for i, outcome in enumerate(outcomes) if outcome == "unknown"]
    applied = acked + [i for i in unknown if random.random() < 0.5]
    random.shuffle(applied)
    return acked, unknown, applied


@proven
@given(outcomes, st.randoms(use_true_random=False))
def test_a_right_system_is_never_blamed(outcomes: list[str], random: Random) -> None:
    assert check_exactly_once(*deliver(random, outcomes)) == []


@proven
@given(outcomes, st.randoms(use_true_random=False), st.data())
def test_one_defect_is_found_as_what_it_is(outcomes: list[str], random: Random, data: st.DataObject) -> None:
    acked, unknown, applied = deliver(random, ["ok", *outcomes])
    victim = data.draw(st.sampled_from(applied))
    assert check_exactly_once(acked, unknown, [*applied, victim]) == [Duplicated(victim, 2)]
    lost = data.draw(st.sampled_from(acked))
    assert check_exactly_once(acked, unknown, [i for i in applied if i != lost]) == [Lost(lost)]
    refused = data.draw(st.sampled_from([i for i, o in enumerate(["ok", *outcomes]) if o == "fail"] or [99]))
    assert check_exactly_once(acked, unknown, [*applied, refused]) == [Invented(refused)]


ids = st.lists(st.integers(0, 4), max_size=6)


@proven
@given(ids, ids, ids)
def test_all_agree_with_their_definitions(acked: list[Hashable], unknown: list[Hashable], applied: list[Hashable]) -> None:
    assert {v.id for v in find_lost(acked, applied)} == set(acked) - set(applied)
    assert {v.id: v.times for v in find_duplicated(applied)} == {i: applied.count(i) for i in applied if applied.count(i) > 1}
    assert {v.id for v in find_invented(acked, unknown, applied)} == set(applied) - set(acked) - set(unknown)


def test_generators_may_be_passed() -> None:
    assert check_exactly_once(iter("a"), iter("b"), iter("abb")) == [Duplicated("b", 2)]


def test_the_first_violations_are_told_and_the_rest_counted() -> None:
    lost = find_lost(range(1, 6), [])
    assert describe_violations(lost, most=2) == "1 was acknowledged and never applied; 2 was acknowledged and never applied; and 3 more"
    assert describe_violations(find_duplicated("xyyy")) == "y was applied 3 times"
    assert describe_violations(find_invented("a", "", "q")) == "q was applied, and was never sent or was refused"
    assert describe_violations([]) == ""
