"""A history that no order explains, drawn for a terminal: a line a client, time from left to right, and why."""

import math
import time
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from runner.checkers.linear import NotLinearizable
from runner.checkers.operations import Operation, show_value
from runner.checkers.orders import Order, possible_orders
from runner.checkers.shrink import Core, Limits, search_core, shrink_violation

WIDTH = 100
SHOWN_ORDERS = 3
MOST_DRAWN = 12
FOR_STATES_S, STATES_CONFIGURATIONS = 0.5, 20_000
UNITS = (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1))


@dataclass(slots=True)
class Lane:
    """A line of the drawing: operations of one client that do not overlap."""

    process: Hashable
    operations: list[Operation]


def draw_violation(violation: NotLinearizable, at_most_s: float = 2.0, width: int = WIDTH) -> str:
    """The diagram and the reason: at most `at_most_s` seconds for the few operations that matter, and about one on top for the reason."""
    core = shrink_violation(violation, at_most_s)
    name = violation.model.name if violation.key is None else f"{violation.model.name} {show_value(violation.key)}"
    drawn = sorted(core.shown, key=lambda operation: math.inf if operation.return_ns is None else operation.return_ns)
    if len(drawn) > MOST_DRAWN:  # the refused one and what was answered before it; where time ran out, there is more that came after it
        others = [operation for operation in drawn if operation.return_ns is not None and operation is not core.refused]
        before = bisect_right(others, core.refused.return_ns or 0, key=attrgetter("return_ns"))
        first = max(before + 1 - MOST_DRAWN, 0)
        unknown = [operation for operation in drawn if operation.return_ns is None][: MOST_DRAWN // 2]
        drawn = [*others[first : first + MOST_DRAWN - 1], core.refused, *unknown]
    lines = [f"{name} is not linearizable: no order explains {core.refused}", ""]
    lines += draw_operations(drawn, core.refused, width)
    lines += ["", *explain_core(core, len(core.shown) - len(drawn))]
    return "\n".join(lines)


def explain_core(core: Core, undrawn: int = 0) -> list[str]:
    """Sentences that say why no order explains the refused operation."""
    lines = [core.reason] if core.reason else []
    if core.before:
        lines.append(f"Where the picture begins, after {count_of(core.before)}, the {core.model.name} can only have been {any_of(core.starts)}.")
    lines += explain_states(core) or ([] if core.reason else ["None of the orders of these operations has a place for it."])
    if undrawn:
        lines.append(f"Not drawn: {count_of(undrawn)} that count, most of them before.")
    if core.left_out:
        lines.append(f"Not shown: {count_of(len(core.left_out))}. No order would do even if each had happened often, at any moment up to its answer.")
    if any(operation.return_ns is None for operation in core.shown):
        lines.append("Open to the right (?): not answered by then; it may have happened at any moment after its call, or never.")
    return lines


def explain_states(core: Core) -> list[str]:
    """What the object can have been meanwhile, and how it can have got there; nothing when that was too much to find out."""
    name, orders = core.model.name, possible_orders(core)
    if not orders:
        found = search_core(core, Limits(time.monotonic() + FOR_STATES_S, STATES_CONFIGURATIONS))
        states = found.states if found.refused is core.refused else ()  # else they are what was possible during another operation
        fits = [state for state in states if any(True for _ in core.model.step(state, core.refused.action))]
        if fits:
            return [explain_fit(core, fits)]
        return [f"Between its call and its answer the {name} can only have been {any_of(states)}."] if states else []
    if any(order.fits for order in orders):
        return [explain_fit(core, [order.state for order in orders if order.fits])]
    # Where the last step is one that is not shown, anything may come: one line for all of these.
    shown = [order for order in orders if not order.operations or isinstance(order.operations[-1], Operation)]
    other = [order.state for order in orders if order not in shown]
    also = f" (or, after one that is not shown, {any_of(other)})" if other and shown else ""
    lines = [f"Between its call and its answer the {name} can only have been {any_of([order.state for order in shown] or other)}{also}:"]
    drawn = shown or list(orders)
    lines += [f"  {describe_order(order, is_one_start=len(core.starts) == 1)}" for order in drawn[:SHOWN_ORDERS]]
    return lines + ([f"  ... and {len(drawn) - SHOWN_ORDERS} more"] if len(drawn) > SHOWN_ORDERS else [])


def explain_fit(core: Core, states: Sequence[Hashable]) -> str:
    """The answer itself was possible."""
    return f"{core.refused} fits only where the {core.model.name} was {any_of(states)}, and then the answers of the others do not follow."


def describe_order(order: Order, *, is_one_start: bool) -> str:
    """A state and the way to it."""
    steps: list[str] = []
    for is_shown, group in groupby(order.operations, key=lambda operation: isinstance(operation, Operation)):
        names = [str(operation) for operation in group]
        steps += names if is_shown else [f"{names[0]} (not shown)" if len(names) == 1 else f"{len(names)} not shown"]
    start = "" if is_one_start else f"from {show_value(order.start)} "
    way = "after " + ", then ".join(steps) if steps else "as it was at the beginning"
    return f"{show_value(order.state)}: {start}{way}"


def count_of(number: int) -> str:
    """A number of operations."""
    return "1 operation" if number == 1 else f"{number} operations"


def any_of(values: Sequence[Hashable]) -> str:
    """Values as a choice, the first few of them."""
    shown = list(map(show_value, values[:6])) + (["..."] if len(values) > 6 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}" if shown else "nothing known"


def draw_operations(operations: Sequence[Operation], refused: Operation, width: int = WIDTH) -> list[str]:
    """The drawing. The distances are not to scale; where labels are too long for `width`, numbers stand for them."""
    ordered = sorted(operations, key=lambda operation: operation.call_ns)
    names = {id(operation): str(operation.action) for operation in ordered}
    margin = max((len(f"client {operation.process}") for operation in ordered), default=0) + 2
    columns = place_columns(ordered, names)
    legend: list[str] = []
    if margin + max(columns.values(), default=0) > width:
        legend = [f"  {number}: {operation}" for number, operation in enumerate(ordered, 1)]
        names = {id(operation): str(number) + (" ?" if operation.return_ns is None else "") for number, operation in enumerate(ordered, 1)}
        columns = place_columns(ordered, names)
    edge = max([columns[at] for at in columns] + [columns[o.call_ns] + len(names[id(o)]) + 3 for o in ordered])
    lines = [draw_axis(columns, margin)]
    for lane in make_lanes(ordered):
        line = f"client {lane.process}".ljust(margin)
        for operation in lane.operations:
            start = margin + columns[operation.call_ns]
            end = margin + (edge if operation.return_ns is None else columns[operation.return_ns])
            bar = "|-" + names[id(operation)] + "-"
            line = line.ljust(start)[:start] + bar.ljust(end - start, "-") + (">" if operation.return_ns is None else "|")
        lines.append(line + ("   <-- no order explains this" if any(operation is refused for operation in lane.operations) else ""))
    return lines + legend


def make_lanes(ordered: Sequence[Operation]) -> list[Lane]:
    """One line a client, and one more where an operation of unknown outcome does not end before the client's next."""
    lanes: list[Lane] = []
    for operation in ordered:
        for lane in lanes:
            last = lane.operations[-1].return_ns
            if lane.process == operation.process and last is not None and last <= operation.call_ns:
                lane.operations.append(operation)
                break
        else:
            lanes.append(Lane(operation.process, [operation]))
    first: dict[Hashable, int] = {}
    for place, lane in enumerate(lanes):
        first.setdefault(lane.process, place)
    return sorted(lanes, key=lambda lane: first[lane.process])


def place_columns(ordered: Sequence[Operation], names: dict[int, str]) -> dict[int, int]:
    """A column for each instant, in their order, far enough apart for every label to fit between its ends."""
    instants = sorted({o.call_ns for o in ordered} | {o.return_ns for o in ordered if o.return_ns is not None})
    columns: dict[int, int] = {}
    column = 0
    for instant in instants:
        ending = [columns[o.call_ns] + len(names[id(o)]) + 3 for o in ordered if o.return_ns == instant and o.call_ns in columns]
        column = max([column, *ending])
        columns[instant] = column
        column += 3
    return columns


def draw_axis(columns: dict[int, int], margin: int) -> str:
    """The times above their columns, as many as fit, counted from the first."""
    start, end = min(columns), max(columns)
    unit, size = next(((unit, size) for unit, size in UNITS if end - start >= 10 * size), UNITS[-1])
    line = f"{unit} ".rjust(margin - 1).ljust(margin)
    for instant, column in columns.items():
        label = f"{(instant - start) / size:.4g}"
        if len(line) <= margin + column:
            line = line.ljust(margin + column) + label + " "
    return line.rstrip()
