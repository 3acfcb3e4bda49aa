"""Registers whose every write is of another value: linearizability decided exactly in n log n, whatever the concurrency.

All operations of one value have to stand together in any order. From the first answer of one of them to the last call of one of
them the value was certainly in force (a forward zone), or some instant in between is enough (a backward zone). There is an order
exactly when no two forward zones overlap and none holds a whole backward zone. Source: Gibbons and Korach, Testing Shared
Memories, SIAM Journal on Computing 26(4) 1997, section 4.
"""

import math
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter

from runner.checkers.operations import Judgement, Operation, show_value


@dataclass(slots=True)
class Zone:
    """The operations of one value: the first answer and the last call among them, and who made them."""

    value: Hashable
    write: Operation | None  # None: the value at the beginning
    answer: float
    call: float
    answered: Operation | None
    called: Operation | None
    reads: list[Operation] = field(default_factory=list)

    @property
    def is_forward(self) -> bool:
        """Whether one of its operations was over before another began."""
        return self.answer < self.call

    def __str__(self) -> str:
        return show_value(self.value)

    @property
    def witnesses(self) -> list[Operation]:
        """The operations that make the zone as wide as it is."""
        return [operation for operation in (self.write, self.answered, self.called) if operation is not None]


def judge_register(initial: Hashable, operations: Sequence[Operation]) -> Judgement:
    """Judge the reads and writes of one register: exactly when no value was written twice, else only what no write explains.

    A read needs a write of its value that began before the read was answered.
    """
    zones = {initial: Zone(initial, None, -math.inf, -math.inf, None, None)}
    is_unique = True
    for operation in operations:
        if operation.kind == "write":
            before = zones.get(operation.argument)
            if before is None:
                answer = math.inf if operation.return_ns is None else operation.return_ns
                zones[operation.argument] = Zone(operation.argument, operation, answer, operation.call_ns, operation, operation)
            else:
                is_unique = False
                if before.write is not None and operation.call_ns < before.write.call_ns:
                    before.write = operation  # the first call: what a read of the value needs
    for operation in operations:
        if operation.kind == "read" and operation.return_ns is not None:
            zone = zones.get(operation.result)
            if zone is None or (zone.write is not None and operation.return_ns < zone.write.call_ns):
                proof = (operation,) if zone is None or zone.write is None else (operation, zone.write)
                return Judgement(False, proof, f"No write of {show_value(operation.result)} had begun when it was answered.")
            zone.reads.append(operation)
    return judge_zones(list(zones.values())) if is_unique else Judgement(None)


def judge_zones(zones: list[Zone]) -> Judgement:
    """Whether the zones can stand one after the other; if not, the first two that cannot and the operations that show it."""
    for zone in zones:
        for read in zone.reads:
            if read.return_ns is not None and read.return_ns < zone.answer:
                zone.answer, zone.answered = read.return_ns, read
            if read.call_ns > zone.call:
                zone.call, zone.called = read.call_ns, read
    # A write of unknown outcome that nobody read never happened, as far as anyone can tell.
    happened = [zone for zone in zones if zone.answer < math.inf]
    forward = sorted((zone for zone in happened if zone.is_forward), key=attrgetter("answer"))
    for zone, later in pairwise(forward):
        if later.answer < zone.call:
            return conflict(zone, later)
    answers = [zone.answer for zone in forward]
    for zone in happened:
        if not zone.is_forward:
            place = bisect_left(answers, zone.call) - 1
            if place >= 0 and zone.answer < forward[place].call:
                return conflict(forward[place], zone)
    return Judgement(True)


def conflict(one: Zone, other: Zone) -> Judgement:
    """Each of the two has an operation that was over before one of the other's began."""
    proof = tuple(dict.fromkeys(one.witnesses + other.witnesses))
    return Judgement(False, proof, f"By their times, {one} came before {other}, and {other} before {one}.")
