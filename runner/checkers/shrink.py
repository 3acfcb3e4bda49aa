"""The few operations that show why no order explains a history.

First the smallest failing prefix. Then an operation is left out where no order explains the rest even if it happened any number of
times at any moment up to its answer: so what is left proves the point by itself, and no write that matters is missing. Where that
leaves many, a window: a moment at which nothing was under way, all states that were possible then, and what came after.
Source: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, IEEE TSE 28(2) 2002 (halving).
"""

import math
import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from runner.checkers.linear import NotLinearizable, cut_after, relax
from runner.checkers.operations import Action, Model, Operation
from runner.checkers.search import CONFIGURATIONS, Found, by_answer, search_order

FEW = 8  # operations that a person can follow: more are cut to a window
FEW_STATES = 6  # at the start of a window
SLACK = 500  # configurations that a smaller question may cost more than the whole one
NOWHERE = "(nothing)"  # an operation that every state refuses


@dataclass(frozen=True, slots=True)
class Core:
    """What shows it: `shown`, which begin in one of `starts`, and `refused`, the one of them that no order explains.

    `left_out` are those that do not help; `before` more came earlier: what they can have led to is in `starts`.
    """

    model: Model
    shown: tuple[Operation, ...]
    refused: Operation
    left_out: tuple[Operation, ...]
    starts: tuple[Hashable, ...]
    before: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop looking, and what one question may cost."""

    until_s: float
    configurations: int = SLACK


def shrink_violation(violation: NotLinearizable, at_most_s: float = 2.0) -> Core:
    """The smallest core found within `at_most_s` seconds: at worst, the smallest failing prefix that is known."""
    model, operations, refused = violation.model, violation.operations, violation.refused
    now_s = time.monotonic()
    limits = Limits(now_s + at_most_s)
    core = Core(model, operations, refused, (), (model.initial,), reason=violation.reason)
    # Unless the model's shortcut says that there was nothing wrong before, the search may find something.
    if not model.shortcut([relax(o) if o is refused else o for o in operations]).is_linearizable:
        smaller, cost = smallest_prefix(core, Limits(now_s + at_most_s / 4, CONFIGURATIONS))
        limits = replace(limits, configurations=SLACK + 4 * cost)
        core = smaller if smaller.refused is refused else replace(smaller, reason="")
    if violation.proof and core.refused is refused:
        core = without(core, [o for o in operations if o is not refused and all(o is not other for other in violation.proof)])
    core = leave_out(core, replace(limits, until_s=now_s + at_most_s / 2))
    return cut_window(core, limits) if len(core.shown) > FEW else show_cause(core, limits)


def smallest_prefix(core: Core, limits: Limits) -> tuple[Core, int]:
    """What was known at the first answer that no order explains, and what a search of it costs; the core as it was when time ran out.

    A search knows later answers too, and so may fail before that. A prefix of what can be explained can be explained, so halving finds it.
    """
    answered = by_answer(core.shown)
    found = search_core(core, limits)
    if found.refused is None:
        return core, SLACK
    low = next(place for place, operation in enumerate(answered) if operation is found.refused)
    high, middle = len(answered) - 1, low
    while low < high:
        tried = search_core(replace(core, shown=cut_after(core.shown, answered[middle])), limits)
        if tried.is_linearizable is None:
            return core, found.configurations
        low, high = (middle + 1, high) if tried.is_linearizable else (low, middle)
        middle = (low + high) // 2
    return replace(core, shown=cut_after(core.shown, answered[low]), refused=answered[low]), found.configurations


def without(core: Core, operations: Iterable[Operation]) -> Core:
    """The core with these left out."""
    out = set(map(id, operations))
    gone = tuple(operation for operation in core.shown if id(operation) in out)
    return replace(core, shown=tuple(operation for operation in core.shown if id(operation) not in out), left_out=core.left_out + gone)


def leave_out(core: Core, limits: Limits) -> Core:
    """Leave out parts, from halves down to single operations, the oldest first, while the rest still fails."""
    size = len(core.shown)
    while size > 1:
        size = (size + 1) // 2
        place = 0
        while place < len(core.shown) and time.monotonic() < limits.until_s:
            part = [operation for operation in core.shown[place : place + size] if operation is not core.refused]
            smaller = without(core, part)
            if part and fails(smaller, limits):
                core = smaller
            else:
                place += size
    return core


def fails(core: Core, limits: Limits) -> bool:
    """Whether no order explains what is shown, whatever those left out did. Without an answer in time, it does not count as failing."""
    return search_core(core, limits).is_linearizable is False


def search_core(core: Core, limits: Limits) -> Found:
    """Look for an order of what is shown."""
    return search_order(
        core.model,
        core.shown,
        starts=core.starts,
        anytime=last_moments(core.model, core.left_out),
        until_s=limits.until_s,
        at_most=limits.configurations,
    )


def last_moments(model: Model, operations: Iterable[Operation]) -> dict[Action, float]:
    """Until when each change may have happened: its answer, or any time."""
    moments: dict[Action, float] = {}
    for operation in operations:
        action = operation.action
        if not model.is_read(action):
            end = math.inf if operation.return_ns is None else operation.return_ns
            moments[action] = max(moments.get(action, -math.inf), end)
    return moments


def show_cause(core: Core, limits: Limits) -> Core:
    """Show too what could have led to the refused answer, though at another time: the latest change after which it would fit.

    What is shown fails all the more when one more of its operations has to happen at its own time.
    """
    model, refused = core.model, core.refused
    states = [model.initial, *search_core(core, replace(limits, configurations=SLACK)).states]

    def leads_there(operation: Operation) -> bool:
        after = {new for state in states for new in model.step(state, operation.action) if new != state}
        return any(True for state in after for _ in model.step(state, refused.action))

    if any(leads_there(operation) for operation in core.shown if operation is not refused):
        return core
    causes = [o for o in core.left_out if not model.is_read(o.action) and leads_there(o)]
    if not causes:
        return core
    cause = max(causes, key=lambda operation: math.inf if operation.return_ns is None else operation.return_ns)
    rest = tuple(operation for operation in core.left_out if operation is not cause)
    return replace(core, shown=(*core.shown, cause), left_out=rest)


def cut_window(core: Core, limits: Limits) -> Core:
    """Begin at a quiet moment, the earliest after which few operations are left: nothing known was under way, few states were possible."""
    for moment in quiet_moments(core.shown):
        before = [o for o in core.shown if o.return_ns is not None and o.return_ns < moment]
        rest = tuple(o for o in core.shown if o.return_ns is None or o.return_ns >= moment)
        if len(rest) > FEW or len(rest) < 2:
            continue
        # What is unknown may have happened before the moment and again after it: that explains more, so a failure stays one.
        states = states_after(core, [*before, *(o for o in rest if o.call_ns < moment)], moment, limits)
        window = replace(core, shown=rest, starts=states, before=core.before + len(before))
        if 0 < len(states) <= FEW_STATES and fails(window, limits):
            return window
    return core


def quiet_moments(operations: Sequence[Operation]) -> list[int]:
    """The calls that began when every known operation so far had been answered, in their order."""
    moments = []
    busy_until = -1
    for operation in sorted(operations, key=lambda operation: operation.call_ns):
        if operation.call_ns > busy_until:
            moments.append(operation.call_ns)
        busy_until = max(busy_until, operation.return_ns or busy_until)
    return moments


def states_after(core: Core, operations: Sequence[Operation], moment: int, limits: Limits) -> tuple[Hashable, ...]:
    """Every state that is possible at `moment`; none when that was too much to find out.

    An operation that every state refuses is asked for at that moment: what refuses it is what was possible.
    """
    probe = Operation(None, NOWHERE, None, None, moment, moment)
    model = replace(
        core.model,
        step=lambda state, action: () if action.kind == NOWHERE else core.model.step(state, action),
        is_read=lambda action: action.kind != NOWHERE and core.model.is_read(action),
    )
    anytime = last_moments(core.model, core.left_out)
    found = search_order(model, [*operations, probe], starts=core.starts, anytime=anytime, until_s=limits.until_s, at_most=limits.configurations)
    return found.states if found.refused is probe else ()
