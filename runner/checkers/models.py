"""The objects that operations are judged against. Each judges one key; an author's own is one pure function more.

A counter that cannot fall below zero, for example:

    def step(state, action):
        if action.kind == "take":
            return (state - 1,) if state > 0 else ()
        return (state,) if action.result == state else ()

    Model("stock", 10, step, is_read=lambda action: action.kind == "read")
"""

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from operator import attrgetter
from typing import Any

from runner.checkers.operations import UNKNOWN, Action, Judgement, Model, Operation, show_value
from runner.checkers.search import by_answer
from runner.checkers.zones import judge_register

REJECTED: tuple[Hashable, ...] = ()


def register(initial: Hashable = None) -> Model:
    """`read` -> value, `write(value)`. Source: Lamport, On Interprocess Communication, 1986 (an atomic register)."""
    kinds = ("read", "write")
    return Model("register", initial, partial(step_value, "register", kinds), reads_value, partial(judge_register, initial), kinds)


def cas_register(initial: Hashable = None) -> Model:
    """`read` -> value, `write(value)`, `cas((old, new))` -> whether `old` was there. Source: Herlihy, Wait-Free Synchronization, 1991."""
    kinds = ("read", "write", "cas")
    return Model("CAS register", initial, partial(step_value, "CAS register", kinds), reads_value, partial(judge_cas_register, initial), kinds)


def key_value(initial: Hashable = None) -> Model:
    """One key of a store: `get` -> value, `put(value)`, `delete`, `append(text)`, `cas((old, new))`; None is no value.

    `delete` may answer whether there was one. Keys do not touch each other, so a store is judged key by key: Herlihy and Wing,
    Linearizability, TOPLAS 12(3) 1990, theorem 1.
    """
    kinds = ("get", "put", "delete", "append", "cas")
    return Model("key", initial, partial(step_value, "key", kinds), reads_value, kinds=kinds)


def counter(initial: int = 0) -> Model:
    """`read` -> number, `add(n)`; an add may answer the new number."""
    return Model("counter", initial, step_counter, lambda action: action.kind == "read", partial(judge_counter, initial), ("read", "add"))


def lock() -> Model:
    """`acquire(holder)` and `release(holder)` -> whether it worked. Not re-entrant. None is a lock that nobody holds.

    An `acquire` answered False says that it was held; one that waited and gave up has no place in the history.
    """
    return Model("lock", None, step_lock, lambda action: action.result is False, kinds=("acquire", "release"))


def set_of(initial: Iterable[Hashable] = ()) -> Model:
    """`add(x)`, `remove(x)`, `contains(x)` -> bool, `read` -> a frozenset; add and remove may answer whether they changed it.

    Where nobody reads all of it, let `key` be the element: elements do not touch each other.
    """
    start = frozenset(initial)
    return Model("set", start, step_set, reads_set, partial(judge_set, start), ("add", "remove", "contains", "read"))


def step_value(name: str, kinds: Sequence[str], state: Any, action: Action) -> tuple[Hashable, ...]:
    """What a register or a key does."""
    kind, argument, result = action
    if kind not in kinds:
        raise ValueError(f"{name} has no operation {kind!r}: one of {', '.join(kinds)}")
    if kind in {"read", "get"}:
        return (state,) if result is UNKNOWN or result == state else REJECTED
    if kind == "cas":
        old, new = pair(action)
        swaps = state == old
        return (new if swaps else state,) if agrees(action, swaps) else REJECTED
    if kind == "append":
        try:
            return (argument if state is None else state + argument,)
        except TypeError as error:
            raise ValueError(f"{action} to {state!r}: {error}") from None
    if kind == "delete":
        return (None,) if result is None or agrees(action, state is not None) else REJECTED
    return (argument,)


def reads_value(action: Action) -> bool:
    """A read; and a `cas` that failed, or put what was there."""
    if action.kind == "cas":
        old, new = pair(action)
        return old == new or action.result is False
    return action.kind in {"read", "get"}


def agrees(action: Action, truth: bool) -> bool:
    """Whether the answer to a yes-or-no question is the true one. Raises ValueError for an answer that is neither."""
    if action.result is UNKNOWN:
        return True
    if action.result is not True and action.result is not False:
        raise ValueError(f"{action}: the answer is {action.result!r}, not True or False")
    return action.result is truth


def pair(action: Action) -> tuple[Hashable, Hashable]:
    """The old and the new value of a `cas`."""
    if not isinstance(action.argument, tuple) or len(action.argument) != 2:
        raise ValueError(f"cas takes (old, new), not {action.argument!r}")
    return action.argument


def step_counter(state: int, action: Action) -> tuple[Hashable, ...]:
    """What a counter does."""
    kind, argument, result = action
    if kind == "read":
        return (state,) if result is UNKNOWN or result == state else REJECTED
    if kind != "add" or not isinstance(argument, int):
        raise ValueError(f"counter has no operation {kind}({argument!r}): one of read, add(whole number)")
    return (state + argument,) if result is UNKNOWN or result is None or result == state + argument else REJECTED


def step_lock(holder: Hashable, action: Action) -> tuple[Hashable, ...]:
    """What a lock does."""
    kind, asker, _ = action
    if kind not in {"acquire", "release"} or asker is None:
        raise ValueError(f"lock has no operation {kind}({asker!r}): one of acquire(holder), release(holder)")
    works = holder is None if kind == "acquire" else holder == asker
    if not agrees(action, works):
        return REJECTED
    return (holder,) if not works else (asker if kind == "acquire" else None,)


def step_set(state: frozenset[Hashable], action: Action) -> tuple[Hashable, ...]:
    """What a set does."""
    kind, element, result = action
    if kind not in {"add", "remove", "contains", "read"}:
        raise ValueError(f"set has no operation {kind!r}: one of add, remove, contains, read")
    if kind == "read":
        return (state,) if result is UNKNOWN or result == state else REJECTED
    is_in = element in state
    if kind == "contains":
        return (state,) if agrees(action, is_in) else REJECTED
    changes = is_in if kind == "remove" else not is_in
    after = state ^ {element} if changes else state
    return (after,) if result is None or agrees(action, changes) else REJECTED


def reads_set(action: Action) -> bool:
    """A question; and a change that says it changed nothing."""
    return action.kind in {"read", "contains"} or action.result is False


def judge_cas_register(initial: Hashable, operations: Sequence[Operation]) -> Judgement:
    """A value that was read, or that a `cas` found, came from a write or a `cas` that began before that was answered."""
    born: dict[Hashable, Operation] = {}
    for operation in operations:
        if operation.kind == "read":
            continue
        value = operation.argument if operation.kind == "write" else pair(operation.action)[1]
        if value not in born or operation.call_ns < born[value].call_ns:
            born[value] = operation
    for operation in operations:
        if operation.return_ns is None or operation.kind == "write":
            continue
        found = operation.result if operation.kind == "read" else pair(operation.action)[0]
        if found == initial or (operation.kind == "cas" and operation.result is not True):
            continue
        if found not in born or operation.return_ns < born[found].call_ns:
            reason = f"Nothing that sets {show_value(found)} had begun when it was answered."
            return Judgement(False, (operation, born[found]) if found in born else (operation,), reason)
    return Judgement(None)


def judge_counter(initial: int, operations: Sequence[Operation]) -> Judgement:
    """A read lies between what was certainly added before it and what can have been added before its answer."""
    adds = [(operation, operation.argument) for operation in operations if operation.kind == "add" and isinstance(operation.argument, int)]
    # A positive add raises the least number once it was answered, the greatest from its call; a negative one the other way round.
    answered = sorted((o.return_ns, n) for o, n in adds if o.return_ns is not None)
    called = sorted((o.call_ns, n) for o, n in adds)
    sums = [list(accumulate((n for _, n in rows if n * sign > 0), initial=0)) for rows in (answered, called) for sign in (1, -1)]
    times = [[at for at, n in rows if n * sign > 0] for rows in (answered, called) for sign in (1, -1)]
    for operation in operations:
        if operation.kind == "read" and operation.return_ns is not None and isinstance(operation.result, int):
            places = [bisect_left(times[0], operation.call_ns), bisect_left(times[1], operation.call_ns)]
            places += [bisect_right(times[2], operation.return_ns), bisect_right(times[3], operation.return_ns)]
            sure_up, sure_down, may_up, may_down = (total[place] for total, place in zip(sums, places, strict=True))
            low, high = initial + sure_up + may_down, initial + sure_down + may_up
            if not low <= operation.result <= high:
                bounds = f"{low}" if low == high else f"at least {low} and at most {high}"
                reason = f"By what was added before its call and before its answer, the counter was {bounds}."
                return Judgement(False, reason=reason)
    return Judgement(None)


def judge_set(initial: frozenset[Hashable], operations: Sequence[Operation]) -> Judgement:
    """What a `read` shows was added before its answer; what was added before its call is in it, unless somebody may have removed it.

    Reads are gone through as they were answered, then as they were called: what is settled for one is so for those after it.
    """
    first_call: dict[tuple[str, Hashable], Operation] = {}
    for operation in operations:
        what = operation.kind, operation.argument
        if what not in first_call or operation.call_ns < first_call[what].call_ns:
            first_call[what] = operation
    answered = by_answer(operations)
    added: dict[Hashable, Operation] = {}
    for operation in answered:
        if operation.kind == "add":
            added.setdefault(operation.argument, operation)
    reads = [operation for operation in answered if operation.kind == "read" and isinstance(operation.result, frozenset)]
    begun = set(initial)
    for read in reads:
        for element in read.result - begun:
            add = first_call.get(("add", element))
            if add is None or (read.return_ns or 0) < add.call_ns:
                reason = f"No add of {show_value(element)} had begun when it was answered, and it is in the answer."
                return Judgement(False, (read,) if add is None else (read, add), reason)
            begun.add(element)
    elements, ends = list(added), [add.return_ns or 0 for add in added.values()]
    sure: set[Hashable] = set()
    place = 0
    for read in sorted(reads, key=attrgetter("call_ns")):
        reached = bisect_left(ends, read.call_ns)
        sure.update(elements[place:reached])
        place = reached
        for element in sure - read.result:
            remove = first_call.get(("remove", element))
            if remove is None or (read.return_ns or 0) < remove.call_ns:
                reason = f"{show_value(element)} was added before its call and nobody asked to remove it, and it is not in the answer."
                return Judgement(False, (added[element], read), reason)
            if remove.call_ns <= read.call_ns:
                sure.discard(element)
    return Judgement(None)
