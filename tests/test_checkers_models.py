"""The models, one operation after the other, and what their shortcuts say by themselves."""

from collections.abc import Hashable
from typing import Any

import pytest

from runner.checkers.models import cas_register, counter, key_value, lock, register, set_of
from runner.checkers.operations import UNKNOWN, Action, Model, Operation

A, B = frozenset("a"), frozenset("b")


@pytest.mark.parametrize(
    ("model", "state", "action", "after"),
    [
        (register(), 1, ("read", None, 1), [1]),
        (register(), 1, ("read", None, 2), []),
        (register(), 1, ("write", 2, None), [2]),
        (register(), None, ("read", None, None), [None]),
        (cas_register(), 1, ("cas", (1, 2), True), [2]),
        (cas_register(), 1, ("cas", (1, 2), False), []),
        (cas_register(), 1, ("cas", (3, 2), False), [1]),
        (cas_register(), 1, ("cas", (3, 2), True), []),
        (cas_register(), 1, ("cas", (1, 2), UNKNOWN), [2]),
        (cas_register(), 1, ("cas", (3, 2), UNKNOWN), [1]),
        (key_value(), None, ("get", None, None), [None]),
        (key_value(), None, ("put", "a", None), ["a"]),
        (key_value(), "a", ("append", "b", None), ["ab"]),
        (key_value(), None, ("append", "b", None), ["b"]),
        (key_value(), "a", ("delete", None, None), [None]),
        (key_value(), "a", ("delete", None, True), [None]),
        (key_value(), None, ("delete", None, True), []),
        (key_value(), "a", ("cas", ("a", "b"), True), ["b"]),
        (counter(), 3, ("read", None, 3), [3]),
        (counter(), 3, ("read", None, 4), []),
        (counter(), 3, ("add", -2, None), [1]),
        (counter(), 3, ("add", 2, 5), [5]),
        (counter(), 3, ("add", 2, 2), []),
        (counter(), 3, ("add", 2, UNKNOWN), [5]),
        (lock(), None, ("acquire", "a", True), ["a"]),
        (lock(), "a", ("acquire", "b", True), []),
        (lock(), "a", ("acquire", "b", False), ["a"]),
        (lock(), "a", ("acquire", "a", True), []),
        (lock(), None, ("acquire", "a", False), []),
        (lock(), "a", ("release", "a", True), [None]),
        (lock(), "a", ("release", "b", True), []),
        (lock(), "a", ("release", "b", False), ["a"]),
        (lock(), "a", ("release", "b", UNKNOWN), ["a"]),
        (set_of(), A, ("add", "b", None), [A | B]),
        (set_of(), A, ("add", "a", True), []),
        (set_of(), A, ("add", "a", False), [A]),
        (set_of(), A, ("remove", "a", True), [frozenset()]),
        (set_of(), A, ("contains", "b", False), [A]),
        (set_of(), A, ("contains", "b", True), []),
        (set_of(), A, ("read", None, A), [A]),
        (set_of(), A, ("read", None, B), []),
    ],
)
def test_a_step_is_what_the_object_would_do(model: Model, state: Hashable, action: tuple[str, Any, Any], after: list[Hashable]) -> None:
    assert list(model.step(state, Action(*action))) == after
    if model.is_read(Action(*action)):
        assert after in ([], [state])


@pytest.mark.parametrize(
    ("model", "action", "is_read"),
    [
        (register(), ("read", None, 1), True),
        (register(), ("write", 1, None), False),
        (cas_register(), ("cas", (1, 2), False), True),
        (cas_register(), ("cas", (1, 1), True), True),
        (cas_register(), ("cas", (1, 2), UNKNOWN), False),
        (lock(), ("acquire", "a", False), True),
        (lock(), ("release", "a", UNKNOWN), False),
        (set_of(), ("add", "a", False), True),
        (set_of(), ("add", "a", None), False),
    ],
)
def test_what_can_change_nothing_is_a_read(model: Model, action: tuple[str, Any, Any], *, is_read: bool) -> None:
    assert model.is_read(Action(*action)) is is_read


@pytest.mark.parametrize(
    ("model", "action", "message"),
    [
        (register(), ("cas", (1, 2), True), "register has no operation 'cas': one of read, write"),
        (cas_register(), ("cas", 1, True), r"cas takes \(old, new\), not 1"),
        (cas_register(), ("cas", (1, 2), None), r"cas\(1, 2\): the answer is None, not True or False"),
        (key_value(), ("set", 1, None), "key has no operation 'set'"),
        (counter(), ("add", "1", None), r"counter has no operation add\('1'\)"),
        (lock(), ("acquire", None, True), r"lock has no operation acquire\(None\)"),
        (lock(), ("acquire", "a", "yes"), "the answer is 'yes'"),
        (set_of(), ("pop", None, "a"), "set has no operation 'pop'"),
    ],
)
def test_what_a_model_does_not_know_is_named(model: Model, action: tuple[str, Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(model.step(None, Action(*action)))


def read(result: object, call: int = 50, end: int = 60) -> Operation:
    return Operation("reader", "read", None, result, call, end)


WRITE, LATE_WRITE = Operation(1, "write", 1, None, 0, 10), Operation(1, "write", 1, None, 70, 80)
CAS, FAILED_CAS = Operation(1, "cas", (1, 2), True, 20, 30), Operation(1, "cas", (7, 2), False, 20, 30)
ADD, LATE_ADD = Operation(1, "add", 5, None, 0, 10), Operation(1, "add", 5, None, 70, 80)
DOWN = Operation(2, "add", -2, None, 0, None)
ADD_A, REMOVE_A = Operation(1, "add", "a", None, 0, 10), Operation(2, "remove", "a", None, 55, None)


@pytest.mark.parametrize(
    ("model", "operations", "is_linearizable", "reason"),
    [
        (register(), [WRITE, read(1)], True, ""),
        (register(1), [WRITE, read(1)], None, ""),
        (register(), [WRITE, read(7)], False, "No write of 7 had begun when it was answered."),
        (register(), [LATE_WRITE, read(1)], False, "No write of 1 had begun when it was answered."),
        (register(), [WRITE, read(None)], False, "By their times, nothing came before 1, and 1 before nothing."),
        (cas_register(), [WRITE, CAS, read(2)], None, ""),
        (cas_register(), [WRITE, FAILED_CAS, read(1)], None, ""),
        (cas_register(), [WRITE, read(7)], False, "Nothing that sets 7 had begun when it was answered."),
        (cas_register(), [CAS, LATE_WRITE], False, "Nothing that sets 1 had begun when it was answered."),
        (counter(), [ADD, read(5)], None, ""),
        (counter(), [ADD, DOWN, read(3)], None, ""),
        (counter(), [ADD, DOWN, read(2)], False, "the counter was at least 3 and at most 5."),
        (counter(), [ADD, LATE_ADD, read(10)], False, "the counter was 5."),
        (set_of(), [ADD_A, read(A)], None, ""),
        (set_of("b"), [read(B)], None, ""),
        (set_of(), [ADD_A, REMOVE_A, read(frozenset())], None, ""),
        (set_of(), [ADD_A, read(frozenset())], False, "a was added before its call and nobody asked to remove it"),
        (set_of(), [read(A)], False, "No add of a had begun when it was answered"),
    ],
)
def test_a_shortcut_says_what_is_certain(model: Model, operations: list[Operation], reason: str, *, is_linearizable: bool | None) -> None:
    judged = model.shortcut(operations)
    assert judged.is_linearizable is is_linearizable
    assert reason in judged.reason
    assert all(operation in operations for operation in judged.proof)


def test_reads_of_a_whole_set_are_judged_without_going_through_its_elements_again() -> None:
    """Hundreds of reads of hundreds of elements: an element is looked at a few times, not once for each read."""

    class Counted:
        looks = 0

        def __hash__(self) -> int:
            Counted.looks += 1
            return id(self)

    elements = [Counted() for _ in range(300)]
    adds = [Operation(1, "add", element, None, n, n) for n, element in enumerate(elements)]
    reads = [Operation(2, "read", None, frozenset(elements), 1000 + n, 1000 + n) for n in range(300)]
    removed = [Operation(3, "remove", element, None, 2000 + n, 2000 + n) for n, element in enumerate(elements)]
    empty = [Operation(2, "read", None, frozenset(), 3000 + n, 3000 + n) for n in range(300)]
    Counted.looks = 0
    assert set_of().shortcut([*adds, *reads, *removed, *empty]).is_linearizable is None
    assert Counted.looks < 20 * len(elements)


@pytest.mark.parametrize(
    ("reads", "is_linearizable"),
    [
        ([read(A, 20, 30), read(frozenset(), 60, 70)], None),
        ([read(frozenset(), 60, 70), read(frozenset(), 20, 30)], False),
        ([read(frozenset(), 20, 90), read(frozenset(), 30, 40)], False),  # the first one is excused, and not the second
        ([read(A | B, 5, 30), read(A | B, 2, 4)], False),  # what had begun for one had not for another
    ],
)
def test_each_read_of_a_set_is_judged_by_its_own_times(reads: list[Operation], *, is_linearizable: bool | None) -> None:
    add_b = Operation(3, "add", "b", None, 5, 95)
    assert set_of().shortcut([ADD_A, REMOVE_A, add_b, *reads]).is_linearizable is is_linearizable


@pytest.mark.parametrize(
    ("operation", "shown"),
    [
        (Operation(3, "write", 1, None, 0, 5), "write(1) by 3"),
        (Operation(3, "write", 1, None, 0, None), "write(1) ? by 3"),
        (Operation("a", "read", None, None, 0, 5), "read -> nothing by a"),
        (Operation(3, "cas", (1, 2), False, 0, 5), "cas(1, 2) -> False by 3"),
        (Operation(3, "read", None, frozenset(range(12)), 0, 5), "read -> {0, 1, 10, 11, 2, 3, 4, 5, ... 12 in all} by 3"),
        (Operation(3, "write", None, None, 0, 5), "write(nothing) by 3"),
        (Operation(3, "put", None, None, 0, None), "put(nothing) ? by 3"),
        (Operation(3, "delete", None, None, 0, 5), "delete by 3"),
        (Operation(3, "delete", None, True, 0, 5), "delete -> True by 3"),
        (Operation(3, "look", None, None, 0, 5), "look -> nothing by 3"),
        (Operation(3, "cas", (None, 1), True, 0, 5), "cas(nothing, 1) -> True by 3"),
        (Operation(3, "read", None, "Zoë", 0, 5), "read -> Zoë by 3"),
        (Operation(3, "read", None, "a\nb\x1b[2J\ud800", 0, 5), r"read -> a\nb\x1b[2J\ud800 by 3"),
        (Operation(3, "read", None, frozenset("\n"), 0, 5), r"read -> {\n} by 3"),
        (Operation(3, "read", None, "x" * 1_000_000, 0, 5), f"read -> {'x' * 60}... by 3"),
        (Operation(3, "read", None, "\n" * 60, 0, 5), "read -> " + r"\n" * 30 + "... by 3"),
    ],
)
def test_an_operation_is_shown_as_it_was_asked_and_answered(operation: Operation, shown: str) -> None:
    assert str(operation) == shown
