"""Conserved totals: a simulated bank is never blamed, its defects are found, and brute force over the unknowns agrees."""

from collections.abc import Hashable, Sequence
from itertools import combinations
from random import Random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.checkers.conserved import (
    BelowFloor,
    Books,
    Miscounted,
    TotalChanged,
    Transfer,
    Unexplained,
    apply_transfers,
    check_totals,
    check_transfers,
)
from runner.checkers.subset import Move, explain_difference
from runner.history import Outcome

proven = settings(max_examples=100, deadline=None, derandomize=True)
ACCOUNTS = "abcd"
INITIAL: dict[Hashable, int] = dict.fromkeys(ACCOUNTS, 1000)
transfers = st.lists(
    st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS), st.integers(1, 9), st.sampled_from(get_args(Outcome))),
    max_size=12,
).map(lambda rows: [Transfer(f"t{i}", *row) for i, row in enumerate(rows)])


def run_bank(random: Random, transfers: Sequence[Transfer]) -> list[Transfer]:
    """What a right bank did: every ok transfer once, some of the unknown ones, no failed one."""
    return [t for t in transfers if t.outcome == "ok" or (t.outcome == "unknown" and random.random() < 0.5)]


def is_right_by_brute_force(initial: dict[Hashable, int], final: dict[Hashable, int], transfers: Sequence[Transfer]) -> bool:
    done = [t for t in transfers if t.outcome == "ok"]
    unknown = [t for t in transfers if t.outcome == "unknown"]
    return any(apply_transfers(initial, [*done, *chosen]) == final for size in range(len(unknown) + 1) for chosen in combinations(unknown, size))


@proven
@given(transfers, st.randoms(use_true_random=False))
def test_a_right_bank_is_never_blamed(transfers: list[Transfer], random: Random) -> None:
    done = run_bank(random, transfers)
    final = apply_transfers(INITIAL, done)
    assert check_totals(INITIAL, final) == []
    assert check_transfers(INITIAL, final, transfers) == Books(())
    assert check_transfers(INITIAL, final, transfers, ledger=[t.id for t in done]) == Books(())


@proven
@given(transfers, st.randoms(use_true_random=False), st.sampled_from(["none", "twice", "dropped", "half", "stray"]), st.data())
def test_the_search_agrees_with_brute_force(transfers: list[Transfer], random: Random, defect: str, data: st.DataObject) -> None:
    done = run_bank(random, transfers)
    final = apply_transfers(INITIAL, done)
    if defect == "stray":
        final[data.draw(st.sampled_from(ACCOUNTS))] += data.draw(st.integers(-3, 3))
    elif done and defect != "none":
        victim = data.draw(st.sampled_from(done))
        if defect == "twice":
            final = apply_transfers(final, [victim])
        elif defect == "dropped":
            final = apply_transfers(INITIAL, [t for t in done if t is not victim])
        else:
            final[victim.target] -= victim.amount
    books = check_transfers(INITIAL, final, transfers)
    assert books.undecided == 0
    assert (not books.violations) == is_right_by_brute_force(INITIAL, final, transfers)


accounts = st.integers(0, 5)
moves = st.lists(st.tuples(accounts, accounts, st.integers(-2, 4)), max_size=9)


@proven
@given(moves, st.dictionaries(accounts, st.integers(-4, 4), max_size=4), st.integers(0, 511))
def test_subsets_agree_with_brute_force(moves: list[tuple[int, int, int]], noise: dict[int, int], chosen: int) -> None:
    missing = dict.fromkeys(range(6), 0)
    for number, (source, target, amount) in enumerate(moves):
        if chosen >> number & 1:
            missing[source] -= amount
            missing[target] += amount
    for account, amount in noise.items():
        missing[account] += amount
    contradicted, undecided = explain_difference(missing, moves)
    assert undecided == 0
    assert (not contradicted) == has_subset_by_brute_force(missing, moves)


def has_subset_by_brute_force(missing: dict[int, int], moves: Sequence[tuple[int, int, int]]) -> bool:
    for bits in range(1 << len(moves)):
        rest = dict(missing)
        for number, (source, target, amount) in enumerate(moves):
            if bits >> number & 1:
                rest[source] += amount
                rest[target] -= amount
        if not any(rest.values()):
            return True
    return False


@proven
@given(transfers, st.randoms(use_true_random=False), st.data())
def test_a_ledger_leaves_no_doubt(transfers: list[Transfer], random: Random, data: st.DataObject) -> None:
    transfers = [Transfer("first", "a", "b", 5, "ok"), *transfers, Transfer("last", "a", "b", 5, "fail")]
    done = run_bank(random, transfers)
    final = apply_transfers(INITIAL, done)
    ledger = [t.id for t in done]
    victim = data.draw(st.sampled_from(done))
    if victim.source != victim.target:
        moved_twice = apply_transfers(final, [victim])
        assert [type(v) for v in check_transfers(INITIAL, moved_twice, transfers, ledger).violations] == [Unexplained]
    twice = check_transfers(INITIAL, final, transfers, [*ledger, victim.id]).violations
    assert twice == (Miscounted(victim.id, victim.outcome, 2),)
    assert Miscounted("first", "ok", 0) in check_transfers(INITIAL, final, transfers, [i for i in ledger if i != "first"]).violations
    assert Miscounted("last", "fail", 1) in check_transfers(INITIAL, final, transfers, [*ledger, "last"]).violations
    assert check_transfers(INITIAL, final, transfers, [*ledger, "ghost"]).violations == (Miscounted("ghost", None, 1),)


def busy_moves(count: int) -> list[Move]:
    """Between four hot accounts, with amounts that never meet."""
    random = Random(5)
    return [(random.choice("ab"), random.choice("cd"), random.randrange(1, 100_000)) for _ in range(count)]


def test_thirty_four_unknowns_between_hot_accounts_are_decided() -> None:
    moves = busy_moves(34)
    right = apply_transfers(dict.fromkeys(ACCOUNTS, 0), [Transfer(i, *move, "ok") for i, move in enumerate(moves[::2])])
    assert explain_difference(right, moves) == (set(), 0)
    right["a"], right["b"] = right["a"] + 1, right["b"] - 1
    assert explain_difference(right, moves) == ({*ACCOUNTS}, 0)


def test_too_many_unknowns_are_undecided_and_not_blamed() -> None:
    moves = busy_moves(60)
    wrong: dict[Hashable, int] = {"a": -1, "b": -1, "c": 1, "d": 1}
    assert explain_difference(wrong, moves, states=1000) == (set(), 60)


def test_too_many_unknowns_do_not_hide_a_total_or_a_balance_out_of_reach() -> None:
    moves = busy_moves(60)
    assert explain_difference({"a": 1}, moves, states=1000) == ({"a"}, 0)
    assert explain_difference({"a": 10**9, "b": -(10**9)}, moves, states=1000) == ({"a", "b"}, 0)


def test_too_many_unknowns_do_not_hide_what_other_accounts_show() -> None:
    elsewhere: list[Move] = [("x", "y", 5)]
    assert explain_difference({"x": -4, "y": 4}, [*busy_moves(60), *elsewhere], states=1000) == ({"x", "y"}, 60)


@pytest.mark.parametrize(
    ("attempts", "moved"),
    [(["unknown", "ok"], True), (["fail", "ok"], True), (["ok", "ok"], True), (["fail", "fail"], False)],
)
def test_a_repeated_id_counts_once(attempts: list[Outcome], *, moved: bool) -> None:
    transfers = [Transfer("t", "a", "b", 7, outcome) for outcome in attempts]
    before: dict[Hashable, int] = {"a": 10, "b": 0}
    after: dict[Hashable, int] = {"a": 3, "b": 7}
    assert (check_transfers(before, after, transfers).violations == ()) is moved
    assert (check_transfers(before, before, transfers).violations == ()) is not moved


def test_an_unknown_attempt_stays_unknown_when_a_later_one_is_refused() -> None:
    transfers = [Transfer("t", "a", "b", 7, "unknown"), Transfer("t", "a", "b", 7, "fail")]
    for final in ({"a": 10, "b": 0}, {"a": 3, "b": 7}):
        assert check_transfers({"a": 10, "b": 0}, final, transfers).violations == ()


def test_an_account_that_appears_or_vanishes_is_found() -> None:
    assert check_transfers({"a": 1}, {"a": 1, "b": 2}, []).violations == (Unexplained((("b", 0, 2),), 0),)
    assert check_transfers({"a": 1}, {}, []).violations == (Unexplained((("a", 1, 0),), 0),)


def test_one_id_for_two_transfers_is_refused() -> None:
    with pytest.raises(ValueError, match="'t' stands for two transfers"):
        check_transfers({}, {}, [Transfer("t", "a", "b", 7, "ok"), Transfer("t", "a", "b", 8, "ok")])


def test_violations_name_accounts_ids_and_amounts() -> None:
    assert check_totals({"a": 10}, {"a": 12, "b": -1}) == [TotalChanged(10, 11), BelowFloor("b", -1, 0)]
    assert [str(v) for v in check_totals({"a": 10}, {"a": 12, "b": -1})] == [
        "the total went from 10 to 11: 1 appeared",
        "account b holds -1, below 0",
    ]
    assert [str(v) for v in check_totals({"a": 10, "b": 1}, {"a": 8}, floor=None)] == ["the total went from 11 to 8: 3 vanished"]
    unknown = [Transfer("u", "a", "b", 4, "unknown")]
    assert [str(v) for v in check_transfers({"a": 10, "b": 0}, {"a": 7, "b": 3}, unknown).violations] == [
        "account a holds 7, not 10, account b holds 3, not 0; no choice among the 1 transfers of unknown outcome explains it"
    ]
    cases: list[tuple[Outcome | None, int]] = [(None, 1), ("fail", 1), ("ok", 0), ("ok", 2)]
    assert [str(Miscounted("t", *case)) for case in cases] == [
        "transfer t is in the ledger and was never asked for",
        "transfer t was refused and is in the ledger",
        "transfer t was acknowledged and is not in the ledger",
        "transfer t is in the ledger 2 times",
    ]
