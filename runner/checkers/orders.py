"""What an object can have been while one operation was under way, and the orders of the others that lead there."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runner.checkers.linear import relax
from runner.checkers.operations import Action, Operation
from runner.checkers.shrink import Core, last_moments

MOST_OPERATIONS = 12
MOST_SPOTS = 5_000
MOST_STEPS = 100_000  # a spot costs one for each operation, those left out included

Spot = tuple[int, Hashable]  # which operations are done, as bits, and the state


@dataclass(frozen=True, slots=True)
class Order:
    """Operations one after the other (an Action: of one that was left out), where they begin and lead, and whether the refused answer fits there."""

    start: Hashable
    operations: tuple[Operation | Action, ...]
    state: Hashable
    fits: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One way into a spot: from where, and by what."""

    origin: Spot
    operation: Operation | Action


def possible_orders(core: Core) -> tuple[Order, ...]:
    """For each state that was possible between the call of the refused operation and its answer, the shortest order that leads there.

    The refused operation may have any answer here, or do nothing. Counts only orders after which the other known operations can follow.
    None at all when there are too many to go through.
    """
    if len(core.shown) > MOST_OPERATIONS:
        return ()
    spots: list[Spot] = [(0, start) for start in core.starts]
    first: dict[Spot, Step | None] = dict.fromkeys(spots)
    steps: dict[Spot, list[Step]] = {}
    moments = last_moments(core.model, core.left_out)
    before = [done_before(core.shown, operation) for operation in core.shown]
    for place, spot in enumerate(spots):  # grows meanwhile: breadth first, so that the first way into a spot is the shortest
        if len(spots) > MOST_SPOTS or place * (len(core.shown) + len(moments)) > MOST_STEPS:
            return ()
        for target, operation in steps_from(core, spot, before, moments):
            if target not in first:
                first[target] = Step(spot, operation)
                spots.append(target)
            steps.setdefault(target, []).append(Step(spot, operation))
    known = sum(1 << place for place, o in enumerate(core.shown) if o.return_ns is not None)
    alive = {spot for spot in spots if spot[0] & known == known}
    back = list(alive)
    while back:
        for step in steps.get(back.pop(), ()):
            if step.origin not in alive:
                alive.add(step.origin)
                back.append(step.origin)
    found: dict[Hashable, Order] = {}
    for spot in spots:
        if spot in alive:
            for step in steps.get(spot, ()):
                if step.operation is core.refused:
                    found.setdefault(step.origin[1], make_order(core, first, step.origin))
    return tuple(found.values())


def steps_from(core: Core, spot: Spot, before: Sequence[int], moments: Mapping[Action, float]) -> Iterator[tuple[Spot, Operation | Action]]:
    """Where one more operation leads: one whose predecessors are done, or one left out that may still happen."""
    done, state = spot
    latest = 0
    for place, operation in enumerate(core.shown):
        if done >> place & 1:
            latest = max(latest, operation.call_ns)
        elif before[place] & ~done == 0:
            is_free = operation is core.refused
            for new in core.model.step(state, relax(operation).action if is_free else operation.action):
                yield (done | 1 << place, new), operation
            if is_free:
                yield (done | 1 << place, state), operation
    for action, moment in moments.items():
        if moment >= latest:
            for new in core.model.step(state, action):
                if new != state:
                    yield (done, new), action


def done_before(operations: Sequence[Operation], operation: Operation) -> int:
    """Those that were answered before this one's call, as bits."""
    return sum(1 << place for place, o in enumerate(operations) if o.return_ns is not None and o.return_ns < operation.call_ns)


def make_order(core: Core, first: dict[Spot, Step | None], spot: Spot) -> Order:
    """The shortest way to a spot."""
    state, way = spot[1], []
    while (step := first[spot]) is not None:
        way.append(step.operation)
        spot = step.origin
    return Order(spot[1], tuple(reversed(way)), state, fits=any(True for _ in core.model.step(state, core.refused.action)))
