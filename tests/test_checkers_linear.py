"""Linearizability: agreement with brute force over the definition, right histories of a busy object, bounds, and what is drawn."""

import itertools
import math
import time
import tracemalloc
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from runner.checkers.diagram import draw_operations, draw_violation, explain_core
from runner.checkers.linear import NotLinearizable, check_linearizable
from runner.checkers.models import cas_register, counter, key_value, lock, register, set_of
from runner.checkers.operations import UNKNOWN, Action, Model, Operation
from runner.checkers.orders import possible_orders
from runner.checkers.search import search_order
from runner.checkers.shrink import Core, shrink_violation

HISTORIES = 10_000
MS = 1_000_000
Ask = tuple[str, Any]  # kind and argument


@dataclass(frozen=True)
class Real:
    """An object written a second time, as plainly as can be: what it answers is the truth that models and search are held against."""

    model: Model
    initial: Hashable
    perform: Callable[[Any, str, Any], tuple[Hashable, Any]]
    ask: Callable[[Random, int], Ask]
    bare: tuple[str, ...] = ()  # kinds that may be answered by a bare acknowledgement

    def accepts(self, operation: Operation, answer: object) -> bool:
        return operation.return_ns is None or operation.result == answer or (operation.result is None and operation.kind in self.bare)


def perform_value(state: Any, kind: str, argument: Any) -> tuple[Hashable, Any]:
    if kind in ("read", "get"):
        return state, state
    if kind == "cas":
        return (argument[1], True) if state == argument[0] else (state, False)
    if kind == "append":
        return (state or "") + argument, None
    return (None, state is not None) if kind == "delete" else (argument, None)


def perform_counter(state: int, kind: str, argument: Any) -> tuple[Hashable, Any]:
    return (state, state) if kind == "read" else (state + argument, state + argument)


def perform_lock(state: Any, kind: str, argument: Any) -> tuple[Hashable, Any]:
    if kind == "acquire":
        return (argument, True) if state is None else (state, False)
    return (None, True) if state == argument else (state, False)


def perform_set(state: frozenset[int], kind: str, argument: Any) -> tuple[Hashable, Any]:
    if kind == "read":
        return state, state
    is_in = argument in state
    if kind == "contains":
        return state, is_in
    return (state | {argument}, not is_in) if kind == "add" else (state - {argument}, is_in)


def ask_any(asks: Sequence[Ask], random: Random, _: int) -> Ask:
    return random.choice(asks)


def ask_unique(random: Random, number: int) -> Ask:
    return random.choice((("read", None), ("write", number)))


WRITES: list[Ask] = [("read", None), ("read", None), ("write", 0), ("write", 1)]
SWAPS: list[Ask] = [("cas", pair) for pair in ((0, 1), (1, 2), (2, 0), (None, 1))]
TEXTS: list[Ask] = [("get", None), ("get", None), ("put", "a"), ("delete", None), ("append", "b"), ("cas", ("a", "b"))]
ADDS: list[Ask] = [("read", None), ("read", None), ("add", 1), ("add", 2), ("add", -1)]
HOLDS: list[Ask] = [(kind, holder) for kind in ("acquire", "release") for holder in "ab"]
ELEMENTS: list[Ask] = [("read", None)] + [(kind, element) for kind in ("add", "remove", "contains") for element in (1, 2)]
EMPTY: frozenset[int] = frozenset()
REALS = [
    Real(register(), None, perform_value, partial(ask_any, WRITES)),
    Real(register(), None, perform_value, ask_unique),
    Real(cas_register(), None, perform_value, partial(ask_any, WRITES + SWAPS)),
    Real(key_value(), None, perform_value, partial(ask_any, TEXTS), bare=("delete",)),
    Real(counter(), 0, perform_counter, partial(ask_any, ADDS), bare=("add",)),
    Real(lock(), None, perform_lock, partial(ask_any, HOLDS)),
    Real(set_of(), EMPTY, perform_set, partial(ask_any, ELEMENTS), bare=("add", "remove")),
]


def make_history(real: Real, random: Random, size: int) -> list[Operation]:
    """Operations with answers that were right at a random moment of each, until up to two of them are bent, or their times moved."""
    asked = []
    for number in range(size):
        call = random.randrange(12)
        asked.append((random.uniform(call, call + random.choice((1, 3, 8))), call, *real.ask(random, number)))
    state, operations = real.initial, []
    for process, (moment, call, kind, argument) in enumerate(sorted(asked, key=lambda row: row[0])):
        end: int | None = math.ceil(moment) + random.randrange(3)
        is_unknown = random.random() < 0.2
        if not is_unknown or random.random() < 0.5:
            state, result = real.perform(state, kind, argument)
        bare = kind in real.bare and random.random() < 0.5
        operations.append(Operation(process, kind, argument, None if bare or is_unknown else result, call, None if is_unknown else end))
    for _ in range(random.choice((0, 1, 2, 3))):
        place = random.randrange(size)
        one, other = operations[place], random.choice(operations)
        may_be_none = one.kind in ("read", "get", *real.bare)
        if random.random() < 0.7 and one.kind == other.kind and other.return_ns is not None and (may_be_none or other.result is not None):
            operations[place] = replace(one, result=other.result)
        elif isinstance(one.result, bool):
            operations[place] = replace(one, result=not one.result)
        elif one.return_ns is not None:
            operations[place] = replace(one, call_ns=one.call_ns + 9, return_ns=one.return_ns + 9)
    random.shuffle(operations)
    return operations


def is_explained(real: Real, operations: Sequence[Operation], extra: Sequence[Operation] = ()) -> bool:
    """The definition, gone through: some order of all that was answered and some of the unknown, that respects time and the object.

    Each of `extra` may happen too, at any moment up to its answer.
    """
    whole = [*operations, *extra]
    starts = [operation.call_ns for operation in operations] + [-1] * len(extra)
    ends = [math.inf if operation.return_ns is None else operation.return_ns for operation in whole]
    must = {place for place, operation in enumerate(operations) if operation.return_ns is not None}

    def can_follow(state: Hashable, left: frozenset[int]) -> bool:
        if not must & left:
            return True
        for place in left:
            if all(ends[other] >= starts[place] for other in must & left):
                after, answer = real.perform(state, whole[place].kind, whole[place].argument)
                gone = {place, *(other for other in left if other >= len(operations) and ends[other] < starts[place])}
                if real.accepts(whole[place], answer) and can_follow(after, left - gone):
                    return True
        return False

    return can_follow(real.initial, frozenset(range(len(whole))))


def test_ten_thousand_small_histories_agree_with_brute_force() -> None:
    random = Random(1993)
    wrong = [0] * len(REALS)
    for number in range(HISTORIES):
        real = REALS[number % len(REALS)]
        operations = make_history(real, random, random.choice((1, 3, 4, 5, 5, 6)))
        is_right = is_explained(real, operations)
        wrong[number % len(REALS)] += not is_right
        found = check_linearizable(operations, real.model)
        assert found.verdict == ("linearizable" if is_right else "not-linearizable"), operations
        # The search alone too: a model's shortcut must not hide what it does.
        assert search_order(real.model, operations).is_linearizable is is_right, operations
    each = HISTORIES // len(REALS)
    assert all(0.1 * each < count < 0.9 * each for count in wrong), wrong


def test_what_is_shown_of_a_wrong_history_is_wrong_by_itself() -> None:
    """The prefix is the smallest, the core of it fails whatever the others did, and its orders end where the answer does not fit."""
    random = Random(2017)
    seen = 0
    for number in range(1400):
        real = REALS[number % len(REALS)]
        operations = make_history(real, random, random.randint(3, 6))
        for violation in check_linearizable(operations, real.model).violations:
            seen += 1
            core = shrink_violation(violation)
            prefix = [*core.shown, *core.left_out]
            refused = core.refused
            assert not is_explained(real, prefix)
            assert is_explained(real, [o if o is not refused else replace(o, result=None, return_ns=None) for o in prefix]), operations
            extra = core.left_out * 2 if len(core.left_out) < 3 else core.left_out  # they may have happened more than once
            assert not is_explained(real, core.shown, extra), operations
            assert any(operation is refused for operation in core.shown)
            orders = possible_orders(core)
            assert orders or not core.left_out, operations
            if real.model.is_read(refused.action):
                assert not any(order.fits for order in orders), operations
            assert str(refused) in draw_violation(violation)
    assert seen > 300


def simulate(random: Random, clients: int, size: int, ask: Callable[[Random, int], Ask]) -> list[Operation]:
    """A right register under load: every client waits for its answer; 3% of the operations stay unknown."""
    free = [random.randrange(100) for _ in range(clients)]
    asked = []
    for number in range(size):
        client = min(range(clients), key=free.__getitem__)
        call = free[client]
        end = call + random.randint(10, 200)
        free[client] = end + random.randint(1, 30)
        asked.append((random.uniform(call, end), client, call, end, *ask(random, number)))
    state, operations = None, []
    for _, client, call, end, kind, argument in sorted(asked):
        state, result = perform_value(state, kind, argument)
        operations.append(Operation(client, kind, argument, result, call, None if random.random() < 0.03 else end))
    return operations


@pytest.mark.parametrize("clients", [10, 20])
@pytest.mark.parametrize(
    ("model", "ask"), [(register(), ask_unique), (register(), partial(ask_any, WRITES)), (cas_register(), partial(ask_any, WRITES + SWAPS))]
)
def test_a_thousand_operations_on_one_key_are_decided(clients: int, model: Model, ask: Callable[[Random, int], Ask]) -> None:
    found = check_linearizable(simulate(Random(7), clients, 1000, ask), model, at_most_s=60)
    assert (found.verdict, found.operations) == ("linearizable", 1000)


def test_one_stale_read_among_a_thousand_operations_is_found_and_drawn() -> None:
    operations = simulate(Random(8), 20, 1000, ask_unique)
    place = max(place for place, operation in enumerate(operations) if operation.kind == "read" and operation.return_ns)
    old = next(o for o in reversed(operations) if o.kind == "read" and o.return_ns is not None and o.return_ns < operations[place].call_ns - 300)
    operations[place] = replace(operations[place], result=old.result)
    (violation,) = check_linearizable(operations, register()).violations
    assert violation.refused is operations[place]
    assert len(shrink_violation(violation).shown) <= 6


def test_unique_writes_are_judged_alike_by_zones_and_by_search() -> None:
    random = Random(1997)
    answers = []
    for _ in range(300):
        operations = simulate(random, 4, 30, ask_unique)
        for _ in range(random.randrange(3)):
            place, other = random.randrange(30), random.choice(operations)
            if operations[place].kind == "read":
                operations[place] = replace(operations[place], result=other.result if other.kind == "read" else other.argument)
        judged = register().shortcut(operations).is_linearizable
        assert judged is search_order(register(), operations).is_linearizable
        answers.append(judged)
    assert answers.count(True) > 50 < answers.count(False)


def hard_question() -> list[Operation]:
    """Twenty-four even adds under way at once, and an odd number read meanwhile: 2^24 sums say no."""
    adds = [Operation(bit, "add", 2 << bit, None, 0, 100) for bit in range(24)]
    return [*adds, Operation("reader", "read", None, 1001, 0, 100)]


def test_what_time_does_not_suffice_for_is_unknown() -> None:
    before = time.monotonic()
    found = check_linearizable(hard_question(), counter(), at_most_s=0.2)
    assert found.verdict == "unknown"
    assert not found.is_decided
    assert not found.violations
    assert str(found) == "not decided in time for 1 keys, such as None"
    assert time.monotonic() - before < 5


def test_forty_writes_of_unknown_outcome_hide_no_wrong_answer() -> None:
    """Any of them may have happened, and in any order: that is not gone through subset by subset."""
    puts = [Operation(n, "put", f"u{n}", None, 0, None) for n in range(40)]
    put, get = Operation("writer", "put", "x", None, 100, 110), Operation("reader", "get", None, "zzz", 200, 210)
    assert check_linearizable([*puts, put, get], key_value()).verdict == "not-linearizable"
    writes = [Operation(n, "write", n, None, 0, None) for n in range(40)]
    known = [Operation("writer", "write", 100 + n, None, 100 + 20 * n, 110 + 20 * n) for n in range(2)]
    stale = Operation("reader", "read", None, 100, 200, 210)
    assert check_linearizable([*writes, *known, stale], cas_register()).verdict == "not-linearizable"


def dear_question() -> list[Operation]:
    """Few configurations, and three thousand ways to go on from each."""
    puts = [Operation(n, "put", f"u{n}", None, 0, None) for n in range(3000)]
    return [*puts, Operation("reader", "get", None, "zzz", 200, 210)]


def test_time_is_heeded_where_a_configuration_is_dear() -> None:
    found = search_order(key_value(), dear_question(), until_s=time.monotonic())
    assert (found.is_linearizable, found.configurations) == (None, 1)


def test_what_is_put_off_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.checkers.search.PENDING", 1000)
    assert search_order(key_value(), dear_question()).is_linearizable is None


def test_a_thousand_writes_of_unknown_outcome_that_nobody_read_cost_little() -> None:
    unknown = [Operation(n, "write", n, None, 0, None) for n in range(1000)]
    known = [Operation("writer", "write", 1000 + n, None, 10 * n, 10 * n + 5) for n in range(1000)]
    tracemalloc.start()
    try:
        assert search_order(cas_register(), [*unknown, *known]).is_linearizable
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_key_without_an_answer_hides_no_violation_of_another() -> None:
    hard = [replace(operation, key="hard") for operation in hard_question()]
    wrong = [Operation(n, "add", 1, 1, 0, 10, "wrong") for n in range(30)]
    found = check_linearizable([*hard, *wrong], counter(), at_most_s=0.2)
    assert (found.verdict, found.undecided, [v.key for v in found.violations]) == ("not-linearizable", ("hard",), ["wrong"])


def test_a_hard_key_leaves_its_share_of_the_time_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(looks) / 1000)  # by the searches' own work: a busy machine takes nothing of a share
    monkeypatch.setattr("runner.checkers.linear.time", clock)
    monkeypatch.setattr("runner.checkers.search.time", clock)
    hard = [replace(operation, key="hard") for operation in hard_question()]
    adds = [Operation(bit, "add", 2 << bit, None, 0, 100, "wrong") for bit in range(12)]  # 2^12 sums: more than a search does in no time
    later = [Operation("late", "add", 2, None, 200 + 10 * n, 205 + 10 * n, "wrong") for n in range(20)]
    wrong = [*adds, Operation("reader", "read", None, 101, 0, 100, "wrong"), *later]
    found = check_linearizable([*hard, *wrong], counter(), at_most_s=1.0)
    assert (found.undecided, [v.key for v in found.violations]) == (("hard",), ["wrong"])


def test_keys_do_not_touch_each_other() -> None:
    def both(first: Hashable, second: Hashable) -> list[Operation]:
        return [Operation(1, "write", 1, None, 0, 10, first), Operation(2, "read", None, None, 20, 30, second)]

    assert check_linearizable(both("x", "y"), register()).verdict == "linearizable"
    assert check_linearizable(both("x", "x"), register()).verdict == "not-linearizable"


@pytest.mark.parametrize(("read_call", "is_right"), [(9, True), (10, True), (11, False)])
def test_touching_ends_are_concurrent(read_call: int, *, is_right: bool) -> None:
    operations = [Operation(1, "write", 1, None, 0, 10), Operation(2, "read", None, None, read_call, 30)]
    assert search_order(register(), operations).is_linearizable is is_right
    for model in (register(), cas_register()):
        assert (check_linearizable(operations, model).violations == ()) is is_right


def test_an_unknown_write_may_come_late_or_never_but_not_early() -> None:
    write = Operation(1, "write", 1, None, 10, None)
    reads = [Operation(2, "read", None, value, 20 * n, 20 * n + 9) for n, value in enumerate((None, 1), 1)]
    for seen in ([write], [write, reads[0]], [write, *reads]):
        assert check_linearizable(seen, register()).verdict == "linearizable"
    early = Operation(2, "read", None, 1, 0, 5)
    back = Operation(2, "read", None, None, 60, 65)
    for wrong in ([write, early], [write, *reads, back]):
        assert check_linearizable(wrong, register()).verdict == "not-linearizable"
        assert search_order(register(), wrong).is_linearizable is False


def test_of_equal_operations_the_one_that_can_wait_longer_waits() -> None:
    adds = [Operation(n, "add", 1, None, 0, end) for n, end in enumerate((20, 40))]
    reads = [Operation("reader", "read", None, 1, 0, 10), Operation("reader", "read", None, 1, 21, 30)]
    assert search_order(counter(), [*adds, *reads]).is_linearizable
    assert search_order(counter(), [*reversed(adds), *reads]).is_linearizable
    assert search_order(counter(), [*adds, *reads, Operation("late", "read", None, 1, 41, 50)]).is_linearizable is False


def test_nothing_is_linearizable() -> None:
    assert check_linearizable([], register()).verdict == "linearizable"


def test_broken_operations_are_named() -> None:
    backwards = Operation(3, "write", 1, None, 10, 5)
    with pytest.raises(ValueError, match=r"write\(1\) by 3 returns at 5 ns, before its call at 10 ns"):
        check_linearizable([backwards], register())
    twice = Operation(3, "write", 1, None, 0, 5)
    with pytest.raises(ValueError, match="the same operation is there twice"):
        check_linearizable([twice, twice], register())
    unhashable = Operation(3, "put", ["a"], None, 0, 5)
    with pytest.raises(ValueError, match=r"put\(\['a'\]\) by 3 of None: unhashable type: 'list'; make a list a tuple"):
        check_linearizable([unhashable], key_value())
    unhashable = Operation(["p"], "write", "a", None, 0, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"write\(a\) by \['p'\] of None: unhashable type: 'list'"):
        check_linearizable([unhashable], register())
    texts = [Operation(3, "put", 1, None, 0, 5), Operation(3, "append", "a", None, 10, 15)]
    with pytest.raises(ValueError, match=r"append\(a\) to 1: unsupported operand"):
        check_linearizable(texts, key_value())
    with pytest.raises(ValueError, match=r"acquire\(a\) -> 1: the answer is 1, not True or False"):
        check_linearizable([Operation(3, "acquire", "a", 1, 0, 5)], lock())


@pytest.mark.parametrize("model", [register(), cas_register(), key_value(), counter(), lock(), set_of()])
def test_an_operation_that_a_model_does_not_know_is_not_passed_over(model: Model) -> None:
    """Not even where a shortcut of the model would have an answer without it."""
    operations = [Operation(1, "swap", "a", None, 0, 5), Operation(1, "read", None, 7, 10, 15)]
    with pytest.raises(ValueError, match="has no operation"):
        check_linearizable(operations, model)


def test_a_misspelt_operation_that_the_search_does_not_need_is_named() -> None:
    operations = [Operation(1, "wirte", 1, None, 0, None), Operation(2, "read", None, None, 10, 15)]
    with pytest.raises(ValueError, match="register has no operation 'wirte': one of read, write"):
        check_linearizable(operations, register())


def test_a_model_that_calls_a_change_a_read_is_named() -> None:
    wrong = Model("broken", 0, lambda state, _: (state + 1,), is_read=lambda _: True)
    with pytest.raises(ValueError, match="model broken: is_read"):
        check_linearizable([Operation(1, "add", 1, None, 0, 5)], wrong)


def test_an_author_writes_a_model_in_one_function() -> None:
    """A stock that never falls below zero; and a die, that may show one of several things."""

    def step(state: int, action: Action) -> tuple[int, ...]:
        if action.kind == "take":
            return (state - 1,) if state > 0 else ()
        return (state,) if action.result in (state, UNKNOWN) else ()

    stock = Model("stock", 1, step, is_read=lambda action: action.kind == "left")
    one, two = (Operation(n, "take", None, True, 0, 10) for n in (1, 2))
    assert check_linearizable([one], stock).verdict == "linearizable"
    assert check_linearizable([one, two], stock).verdict == "not-linearizable"
    die = Model("die", 0, lambda state, action: (1, 2, 3) if action.kind == "roll" else (state,) if state == action.result else ())
    roll = Operation(1, "roll", None, None, 0, 10)
    for shown in (1, 3, 4):
        found = check_linearizable([roll, Operation(1, "look", None, shown, 20, 30)], die)
        assert (found.verdict == "linearizable") is (shown < 4)


def test_a_violation_is_one_line() -> None:
    operations = [Operation(1, "write", 1, None, 0, 10, "x"), Operation(2, "read", None, 7, 20, 30, "x"), Operation(3, "read", None, 8, 40, 50, "x")]
    found = check_linearizable(operations, register())
    assert [str(violation) for violation in found.violations] == ["register x: no order of 2 operations explains read -> 7 by 2"]
    assert str(found) == "not-linearizable: 3 operations, 1 keys wrong"


def violation_of(operations: Sequence[Operation], model: Model) -> NotLinearizable:
    (violation,) = check_linearizable(operations, model).violations
    return violation


def test_a_stale_read_is_drawn() -> None:
    operations = [
        Operation(1, "write", 1, None, 0, 10 * MS, "x"),
        Operation(4, "read", None, 1, 12 * MS, 14 * MS, "x"),
        Operation(2, "write", 2, None, 20 * MS, 31 * MS, "x"),
        Operation(4, "write", 9, None, 22 * MS, None, "x"),
        Operation(3, "read", None, 1, 40 * MS, 52 * MS, "x"),
        Operation(3, "read", None, 2, 60 * MS, 61 * MS, "x"),
    ]
    assert draw_violation(violation_of(operations, register())).splitlines() == [
        "register x is not linearizable: no order explains read -> 1 by 3",
        "",
        "      ms  0          10 20         31 40          52",
        "client 1  |-write(1)-|",
        "client 2                |-write(2)-|",
        "client 3                              |-read -> 1-|   <-- no order explains this",
        "",
        "By their times, 1 came before 2, and 2 before 1.",
        "Between its call and its answer the register can only have been 2 (or, after one that is not shown, 9):",
        "  2: after write(1) by 1, then write(2) by 2",
        "Not shown: 2 operations. No order would do even if each had happened often, at any moment up to its answer.",
    ]


def test_a_value_that_was_written_later_is_not_said_to_be_written_by_nobody() -> None:
    operations = [Operation(1, "read", None, 1, 50, 60), Operation(2, "write", 1, None, 70, 80)]
    assert "No write of 1 had begun when it was answered." in draw_violation(violation_of(operations, register())).splitlines()


def test_an_operation_without_an_answer_is_drawn_open() -> None:
    operations = [
        Operation(1, "write", 1, None, 0, None),
        Operation(1, "write", 2, None, 10, 20),
        *(Operation(3, "read", None, value, at, at + 5) for value, at in ((1, 30), (2, 40), (1, 50))),
        Operation(2, "write", 2, None, 32, None),
    ]
    assert draw_violation(violation_of(operations, register())).splitlines()[2:] == [
        "      ns  0  30          35 40          45 50          55",
        "client 1  |-write(1) ?--------------------------------->",
        "client 3     |-read -> 1-|  |-read -> 2-|  |-read -> 1-|   <-- no order explains this",
        "",
        "Between its call and its answer the register can only have been 2:",
        "  2: after write(1) ? by 1, then read -> 1 by 3, then write(2) ? (not shown), then read -> 2 by 3",
        "Not shown: 2 operations. No order would do even if each had happened often, at any moment up to its answer.",
        "Open to the right (?): not answered by then; it may have happened at any moment after its call, or never.",
    ]


def test_a_client_that_goes_on_without_an_answer_has_a_line_more() -> None:
    gave_up, next_one, read = Operation(1, "write", 1, None, 0, None), Operation(1, "write", 2, None, 10, 20), Operation(2, "read", None, 1, 5, 30)
    assert draw_operations([gave_up, read, next_one], read) == [
        "      ns  0  5  10         20 30",
        "client 1  |-write(1) ?-------->",
        "client 1        |-write(2)-|",
        "client 2     |-read -> 1------|   <-- no order explains this",
    ]


def test_what_is_too_wide_is_numbered() -> None:
    old, new = "a-value-that-is-long", "one-more-long-value"
    operations = [
        Operation(1, "write", old, None, 0, 15),
        Operation(2, "write", new, None, 20, 35),
        *(Operation("reader", "read", None, value, at, at + 5) for value, at in ((new, 40), (old, 50))),
    ]
    assert draw_violation(violation_of(operations, register()), width=40).splitlines()[2:8] == [
        "           ns  0   15 40  45 50  55",
        "client 1       |-1-|",
        "client reader         |-2-|  |-3-|   <-- no order explains this",
        "  1: write(a-value-that-is-long) by 1",
        "  2: read -> one-more-long-value by reader",
        "  3: read -> a-value-that-is-long by reader",
    ]


def test_a_long_history_is_drawn_from_a_quiet_moment_on() -> None:
    adds = [Operation(n % 2, "add", 1, None, 10 * n, 10 * n + 5) for n in range(40)]
    drawn = draw_violation(violation_of([*adds, Operation(9, "read", None, 38, 420, 425)], counter()), width=140).splitlines()
    assert drawn[2:] == [
        "      ns  0        5  10       15 20       25 30       35 40       45 50       55 60       65 90           95",
        "client 1  |-add(1)-|              |-add(1)-|              |-add(1)-|              |-add(1)-|",
        "client 0              |-add(1)-|              |-add(1)-|              |-add(1)-|",
        "client 9                                                                                      |-read -> 38-|   <-- no order explains this",
        "",
        "By what was added before its call and before its answer, the counter was 40.",
        "Where the picture begins, after 33 operations, the counter can only have been 33.",
        "Between its call and its answer the counter can only have been 40:",
        "  40: after " + ", then ".join(f"add(1) by {n % 2}" for n in range(1, 8)),
    ]


def test_where_no_moment_is_quiet_the_latest_are_drawn() -> None:
    adds = [Operation(n % 3, "add", 1, None, 10 * n, 10 * n + 12) for n in range(40)]
    drawn = draw_violation(violation_of([*adds, Operation(9, "read", None, 38, 420, 425)], counter()), at_most_s=0.4)
    assert "client 9" in drawn
    assert drawn.splitlines()[-3:] == [
        "By what was added before its call and before its answer, the counter was 40.",
        "Between its call and its answer the counter can only have been 40.",
        "Not drawn: 29 operations that count, most of them before.",
    ]


def test_where_time_ran_out_the_refused_operation_is_drawn_all_the_same() -> None:
    """What was answered after it is there then, and more than there is room for."""
    *adds, read = hard_question()
    late = [replace(add, return_ns=101 + bit) for bit, add in enumerate(adds)]
    drawn = draw_violation(NotLinearizable(None, counter(), (*late, read), read), at_most_s=0).splitlines()
    assert [line.split()[:2] for line in drawn if line.endswith("<-- no order explains this")] == [["client", "reader"]]
    assert "Not drawn: 13 operations that count, most of them before." in drawn


def test_the_states_that_are_told_are_those_during_the_refused_operation() -> None:
    """A search knows its wrong answer too, and so may end at another operation."""
    adds = [Operation("a", "add", 1, None, 10 * n, 10 * n + 5) for n in range(14)]
    read, refused = Operation("b", "read", None, 15, 210, 220), Operation("c", "add", 1, 99, 200, 300)
    assert explain_core(Core(counter(), (*adds, read, refused), refused, (), (0,))) == ["None of the orders of these operations has a place for it."]
    states = explain_core(Core(counter(), (*adds, replace(read, result=14), refused), refused, (), (0,)))
    assert states == ["Between its call and its answer the counter can only have been 14."]


def test_orders_are_not_looked_for_for_long() -> None:
    """Where thousands of writes are left out there are thousands of ways into every state."""
    steps = 0

    def step(state: Hashable, action: Action) -> Sequence[Hashable]:
        nonlocal steps
        steps += 1
        return list(register().step(state, action))

    writes = [Operation("a", "write", n, None, 0, 10) for n in range(2500)]
    shown = (Operation("a", "write", -1, None, 0, 5), Operation("a", "write", -2, None, 20, 30), Operation("b", "read", None, -1, 40, 50))
    assert possible_orders(Core(replace(register(), step=step), shown, shown[-1], tuple(writes), (None,))) == ()
    assert steps < 150_000
