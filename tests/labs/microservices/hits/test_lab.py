"""Hits: two visitors, ten hits each."""

import pytest

VISITORS, HITS = 2, 10


@pytest.fixture(scope="module")
def visit(lab):
    """Both visitors hit and stop."""
    lab.mark(f"the day's number is {lab.random.randrange(10**9)}")
    with lab.load(users=VISITORS, plan={"hits": HITS}, at_most_s=10) as load:
        lab.mark("the visitors come")
    return load


def test_every_hit_is_counted(visit, lab):
    """Every hit is counted.

    Why: the count is read, and written later.
    """
    lab.require(len(visit.history) >= VISITORS, f"{len(visit.history)} hits were sent")
    counted = lab.call("GET", "/hits").json()["hits"]
    seen = f"{counted} of {VISITORS * HITS} hits counted\nthe last was {visit.history.records[-1].status}"
    lab.at_least(counted, VISITORS * HITS, seen, "hits counted")


def test_no_two_hits_have_one_number(visit, lab):
    """Each answer names another number.

    Why: two hits take the same number.
    """
    numbers = [r.body["number"] for r in visit.history if r.outcome == "ok"]
    assert numbers, "no hit was answered"
    assert len(set(numbers)) == len(numbers), f"{len(numbers)} answers, {len(set(numbers))} numbers"
