"""Is there an order that explains one key's operations? An exact search: Wing and Gong, with Lowe's memory of what was tried.

The answers are gone through in the order in which they came. Between two of them, operations under way may take effect one after
the other, and only as late as possible: just before an answer that needs them. What was tried is remembered as (answer, what
took effect early, state), which is (set of linearized operations, state) in few bits.
Sources: Wing and Gong, Testing and Verifying Concurrent Objects, JPDC 17 1993; Lowe, Testing for Linearizability, Concurrency
and Computation 29(4) 2017 (just-in-time linearization).

Four shortcuts lose no order:
- a read takes effect in the first state that gives its answer, since it changes none;
- of equal operations the one that is answered first takes effect first;
- an operation of unknown outcome that would change nothing did not happen;
- where a configuration failed, so does one that differs only in having used up more operations of unknown outcome.

The last one needs those that used up fewer to be tried first: otherwise every subset of the unknown ones is gone through. So what
nobody answered is put off until the answered operations lead no further, and then the configurations that used up fewest go on.
"""

import math
import time
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import NamedTuple

from runner.checkers.operations import Action, Model, Operation

CONFIGURATIONS = 1 << 18  # remembered at most: about 350 MB with 24 operations at once, and 32 KB for each one of unknown outcome
PENDING = 1 << 20  # to be looked at, at most: about 160 MB
NOTHING: Mapping[Action, float] = MappingProxyType({})
LOOK_AT_CLOCK = 4096  # after so many steps and comparisons: one configuration may cost thousands
Choice = tuple[int, int]  # bit and action number


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: None when it had to stop.

    `refused` is the operation whose answer no order reaches; between its call and its answer the object was in one of `states`.
    """

    is_linearizable: bool | None
    refused: Operation | None = None
    states: tuple[Hashable, ...] = ()
    configurations: int = 0


class Answer(NamedTuple):
    """The answer of one operation and what is under way when it comes. Bit 0: nobody's, just an instant."""

    bit: int
    action: int
    is_read: bool
    reads: tuple[Choice, ...]
    changes: tuple[Choice, ...]  # the one answered first comes first; without the answered one
    unknowns: int  # so many of those of unknown outcome had been called
    over: int  # so many of what may happen any number of times were over


class Steps:
    """The model by numbers of states and actions, each step computed once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.actions: dict[Action, int] = {}
        self.named: list[Action] = []
        self.is_read: list[bool] = []
        self.after: list[dict[int, tuple[int, ...]]] = []  # action -> state -> states
        self.numbers: dict[Hashable, int] = {}
        self.states: list[Hashable] = []

    def action(self, action: Action) -> int:
        """The number of an action."""
        number = self.actions.get(action)
        if number is None:
            number = self.actions[action] = len(self.named)
            self.named.append(action)
            self.is_read.append(self.model.is_read(action))
            self.after.append({})
        return number

    def state(self, state: Hashable) -> int:
        """The number of a state."""
        number = self.numbers.get(state)
        if number is None:
            number = self.numbers[state] = len(self.states)
            self.states.append(state)
        return number

    def follow(self, action: int, state: int) -> tuple[int, ...]:
        """The states after an action. Raises ValueError when the model calls a read what changes a state."""
        after = self.after[action].get(state)
        if after is not None:
            return after
        after = tuple(self.state(new) for new in self.model.step(self.states[state], self.named[action]))
        if self.is_read[action] and any(new != state for new in after):
            raise ValueError(f"model {self.model.name}: is_read({self.named[action]}) is true, and it changes {self.states[state]!r}")
        self.after[action][state] = after
        return after


def search_order(
    model: Model,
    operations: Sequence[Operation],
    *,
    starts: Sequence[Hashable] | None = None,
    anytime: Mapping[Action, float] = NOTHING,
    until_s: float = math.inf,
    at_most: int = CONFIGURATIONS,
) -> Found:
    """Look for an order of all operations, those of unknown outcome as they fit, until `until_s` of the monotonic clock.

    It begins in one of `starts`, by default the model's initial state. Each action of `anytime` may happen any number of times
    up to the instant given (ns): what fails all the same fails whatever came of it.
    Raises ValueError for what the model refuses to judge.
    """
    steps = Steps(model)
    answered = by_answer(operations)
    instants = merge_instants(answered, anytime)
    limits = sorted(((last_ns, steps.action(action)) for action, last_ns in anytime.items()), key=itemgetter(0))
    unknowns: list[Choice] = []
    plan, answers = plan_answers(steps, operations, instants, [last_ns for last_ns, _ in limits], unknowns), list[Answer]()
    follow, last = steps.follow, len(instants)
    tried: list[dict[tuple[int, int], list[int]]] = [{} for _ in instants]
    stack = [(0, 0, 0, steps.state(start)) for start in ((model.initial,) if starts is None else starts)]
    late: list[tuple[int, int, int, int, int, int, int]] = []  # a heap of what was tried, but not with what nobody answered
    furthest = count = work = 0
    while stack or late:
        if count >= at_most or len(stack) > PENDING or (work >= LOOK_AT_CLOCK and time.monotonic() > until_s):
            return Found(None, configurations=count)
        work %= LOOK_AT_CLOCK
        if late and (not stack or late[0][:2] < (-stack[-1][0], -stack[-1][1].bit_count())):
            back, _, _, _, early, used, state = heappop(late)
            answer = answers[-back]
            others = [(0, action) for _, action in limits[answer.over :]] + unused(unknowns[: answer.unknowns], used)
            stack += [(-back, early, used | other_bit, new) for other_bit, other in others for new in follow(other, state) if new != state]
            work += 1 + answer.unknowns + len(others)
            continue
        place, early, used, state = stack.pop()
        while place < last:
            if place == len(answers):  # planned as far as the search gets: a failure is often early
                answers.append(next(plan))
            bit, action, is_read, reads, changes, called, over = answers[place]
            for read_bit, read in reads:
                if not early & read_bit and follow(read, state):
                    early |= read_bit
            if not early & bit:
                break
            early ^= bit
            place += 1
        else:
            return Found(True, configurations=count)
        furthest = max(furthest, place)
        failed = tried[place].setdefault((early, state), [])
        work += 1 + len(failed) + len(changes)
        if any(fewer & used == fewer for fewer in failed):
            continue
        failed.append(used)
        count += 1
        if called or over < len(limits):
            heappush(late, (-place, -early.bit_count(), used.bit_count(), -count, early, used, state))
        # The stack is last in, first out: what is likeliest to lead on goes in last.
        others = [choice for choice in unused(changes, early) if choice[1] != action]
        stack += [(place, early | other_bit, used, new) for other_bit, other in others for new in follow(other, state)]
        if not is_read:
            stack += [(place + 1, early, used, new) for new in (follow(action, state) if bit else (state,))]
    refused = instants[furthest][1]
    assert refused is not None, "a mere instant refuses nothing"
    meanwhile = [place for place in range(furthest + 1) if instants[place][0] >= refused.call_ns]
    states = dict.fromkeys(steps.states[state] for place in meanwhile for _, state in tried[place])
    return Found(False, refused, tuple(states), count)


def unused(choices: Sequence[Choice], used: int) -> list[Choice]:
    """The first of each action that was not used up."""
    first: dict[int, int] = {}
    for bit, action in choices:
        if not used & bit:
            first.setdefault(action, bit)
    return [(bit, action) for action, bit in first.items()]


def by_answer(operations: Sequence[Operation]) -> list[Operation]:
    """Those that were answered, in the order of their answers."""
    return sorted((o for o in operations if o.return_ns is not None), key=attrgetter("return_ns"))


def merge_instants(answered: Sequence[Operation], anytime: Mapping[Action, float]) -> list[tuple[float, Operation | None]]:
    """The answers, and between them (None) the instants at which something is possible for the last time."""
    instants: list[tuple[float, Operation | None]] = [(operation.return_ns or 0, operation) for operation in answered]
    if answered and anytime:
        instants += [(last_ns, None) for last_ns in set(anytime.values()) if last_ns < instants[-1][0]]
        instants.sort(key=itemgetter(0))
    return instants


def plan_answers(
    steps: Steps,
    operations: Sequence[Operation],
    instants: Sequence[tuple[float, Operation | None]],
    ends: Sequence[float],
    unknowns: list[Choice],
) -> Iterator[Answer]:
    """Each answer with what is under way, where something ends at each of `ends`. Fills `unknowns` as it goes, once for all answers.

    A call at the very instant of an answer counts as before it, which blames nobody.
    """
    calls = sorted(operations, key=attrgetter("call_ns"), reverse=True)
    rank = {id(operation): place for place, (_, operation) in enumerate(instants)}
    changes: dict[int, Choice] = {}  # rank -> (bit, action)
    reads: dict[int, Choice] = {}
    free: list[int] = []  # bits of answered operations, to be used again: the masks stay as short as the concurrency
    size = 0
    for place, (instant, operation) in enumerate(instants):
        while calls and calls[-1].call_ns <= instant:
            called = calls.pop()
            action = steps.action(called.action)
            if called.return_ns is None:
                if not steps.is_read[action]:
                    unknowns.append((1 << len(unknowns), action))
                continue
            if free:
                bit = free.pop()
            else:
                bit, size = 1 << size, size + 1
            (reads if steps.is_read[action] else changes)[rank[id(called)]] = bit, action
        is_read = place in reads
        bit, action = reads[place] if is_read else changes.pop(place) if operation else (0, -1)
        under_way = tuple([changes[other] for other in sorted(changes)])
        yield Answer(bit, action, is_read, tuple(reads.values()), under_way, len(unknowns), bisect_left(ends, instant))
        if operation:
            reads.pop(place, None)
            free.append(bit)
