"""Linearizability: is there, for each key, an order that respects time in which one object alone would have answered the same?

An operation takes effect at one instant between its call and its answer. One of unknown outcome took effect at any time after its
call, or never. Source: Herlihy and Wing, Linearizability, TOPLAS 12(3) 1990. Keys are judged one by one, which is exact (their
theorem 1) and what makes it cheap: Horn and Kroening, Faster Linearizability Checking via P-Compositionality, FORTE 2015.
"""

import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from runner.checkers.operations import Model, Operation
from runner.checkers.search import by_answer, search_order


@dataclass(frozen=True, slots=True)
class NotLinearizable:
    """No order explains these operations of one key: all that began before the answer of `refused`, at which the search ended.

    `proof` are the few operations that prove it whatever the others did, and `reason` says why, when a shortcut of the model did.
    """

    key: Hashable
    model: Model
    operations: tuple[Operation, ...]
    refused: Operation
    proof: tuple[Operation, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        name = self.model.name if self.key is None else f"{self.model.name} {self.key}"
        return f"{name}: no order of {len(self.operations)} operations explains {self.refused}"


@dataclass(frozen=True, slots=True)
class Linearity:
    """What was found: the keys that no order explains, those that time did not suffice for, and how many operations there were."""

    violations: tuple[NotLinearizable, ...]
    undecided: tuple[Hashable, ...]
    operations: int

    @property
    def verdict(self) -> Literal["linearizable", "not-linearizable", "unknown"]:
        """One violation decides; without one, every key has to be decided."""
        if self.violations:
            return "not-linearizable"
        return "unknown" if self.undecided else "linearizable"

    @property
    def is_decided(self) -> bool:
        """What a check requires before it judges."""
        return self.verdict != "unknown"

    def __str__(self) -> str:
        if not self.is_decided:
            return f"not decided in time for {len(self.undecided)} keys, such as {self.undecided[0]}"
        return f"{self.verdict}: {self.operations} operations" + (f", {len(self.violations)} keys wrong" if self.violations else "")


def check_linearizable(operations: Iterable[Operation], model: Model, at_most_s: float = 10.0) -> Linearity:
    """Judge the operations of each key against one object of its own, for about `at_most_s` seconds in all.

    Keys with few operations come first, and each may take an even share of the time that is left. One that this does not suffice for
    is undecided, never blamed or passed.
    A check: `lab.require(found.is_decided, str(found))`, then `assert not found.violations, draw_violation(found.violations[0])`.
    Raises ValueError for an operation that ends before it starts, that cannot be hashed, or that the model does not know.
    """
    until_s = time.monotonic() + at_most_s
    groups: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        check_operation(operation, model)
        groups.setdefault(operation.key, []).append(operation)
    violations: list[NotLinearizable] = []
    undecided: list[Hashable] = []
    for key, own in groups.items():
        if len(set(map(id, own))) < len(own):
            raise ValueError(f"key {key}: the same operation is there twice; make one Operation a request")
    ordered = sorted(groups.items(), key=lambda group: len(group[1]))
    for place, (key, own) in enumerate(ordered):
        now_s = time.monotonic()
        answer, violation = judge_key(key, own, model, now_s + (until_s - now_s) / (len(ordered) - place))
        if violation is not None:
            violations.append(violation)
        elif answer is None:
            undecided.append(key)
    return Linearity(tuple(violations), tuple(undecided), sum(map(len, groups.values())))


def check_operation(operation: Operation, model: Model) -> None:
    """Raises ValueError for one that the model does not know, that ends before it starts, or that cannot be hashed."""
    if model.kinds and operation.kind not in model.kinds:
        raise ValueError(f"{model.name} has no operation {operation.kind!r}: one of {', '.join(model.kinds)}")
    if operation.return_ns is not None and operation.return_ns < operation.call_ns:
        raise ValueError(f"{operation} returns at {operation.return_ns} ns, before its call at {operation.call_ns} ns")
    try:
        hash((operation.process, operation.key, operation.argument, operation.result))
    except TypeError as error:
        raise ValueError(f"{operation} of {operation.key}: {error}; make a list a tuple, and a set a frozenset") from None


def judge_key(key: Hashable, operations: Sequence[Operation], model: Model, until_s: float) -> tuple[bool | None, NotLinearizable | None]:
    """One key: what is cheap and exact first, then the search."""
    shortcut = model.shortcut(operations)
    if shortcut.is_linearizable is False:
        return False, refute_early(key, operations, model, until_s)
    if shortcut.is_linearizable:
        return True, None
    found = search_order(model, operations, until_s=until_s)
    if found.refused is None:
        return found.is_linearizable, None
    end = found.refused.return_ns or 0
    return False, NotLinearizable(key, model, tuple(o for o in operations if o.call_ns <= end), found.refused)


def refute_early(key: Hashable, operations: Sequence[Operation], model: Model, until_s: float) -> NotLinearizable:
    """A prefix that the model's shortcut refutes, and that one answer less would not be, unless time runs out.

    A prefix of what can be explained can be explained, so halving finds it.
    """
    answered = by_answer(operations)
    low, high = 0, len(answered) - 1
    while low < high and time.monotonic() < until_s:
        middle = (low + high) // 2
        if model.shortcut(cut_after(operations, answered[middle])).is_linearizable is False:
            high = middle
        else:
            low = middle + 1
    prefix = cut_after(operations, answered[high])
    judged = model.shortcut(prefix)
    return NotLinearizable(key, model, prefix, answered[high], judged.proof, judged.reason)


def cut_after(operations: Sequence[Operation], last: Operation) -> tuple[Operation, ...]:
    """What was known when `last` was answered: calls up to then, and of those that were answered later the outcome is unknown."""
    answered = by_answer(operations)
    place = next(place for place, operation in enumerate(answered) if operation is last)
    is_late = set(map(id, answered[place + 1 :]))
    end = answered[place].return_ns or 0
    return tuple(relax(o) if id(o) in is_late else o for o in operations if o.call_ns <= end)


def relax(operation: Operation) -> Operation:
    """The same operation, its outcome unknown."""
    return operation if operation.return_ns is None else replace(operation, result=None, return_ns=None)
