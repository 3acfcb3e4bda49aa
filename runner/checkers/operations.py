"""The words of linearizability: an operation, what it did as a model sees it, and a model."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

SHOWN_ELEMENTS, SHOWN_CHARACTERS = 8, 60
WRITES = {"write", "put"}  # None is a value to them
CHANGES = {*WRITES, "delete"}  # an answer of None says nothing


class Unknown(Enum):
    """The type of UNKNOWN."""

    RESULT = "?"

    def __str__(self) -> str:
        return self.value


UNKNOWN = Unknown.RESULT  # a result that nobody saw: the operation may have happened at any time after its call, or never


class Action(NamedTuple):
    """All that a model may look at. Equal actions are one and the same to the search, so that who asked and when are not in it."""

    kind: str
    argument: Any
    result: Any  # UNKNOWN when nobody saw it

    def __str__(self) -> str:
        return show_call(self.kind, self.argument) + show_result(self.kind, self.argument, self.result)


@dataclass(frozen=True, slots=True)
class Operation:
    """`process` asked for `kind` of `key` between two instants of one clock; `return_ns` is None when the outcome is unknown.

    An operation that certainly did nothing (a refusal) has no place here. With an unknown outcome the result is ignored. From a
    record: `return_ns` is `record.end_ns` when `record.effect` is ok, else None. Arguments and results must be hashable.
    """

    process: Hashable
    kind: str
    argument: Any
    result: Any
    call_ns: int
    return_ns: int | None
    key: Hashable = None

    @property
    def action(self) -> Action:
        """What a model sees of it."""
        return Action(self.kind, self.argument, UNKNOWN if self.return_ns is None else self.result)

    def __str__(self) -> str:
        return f"{self.action} by {self.process}"


class Judgement(NamedTuple):
    """What a shortcut says: linearizable or not, None when it cannot tell.

    For a no: the few operations that prove it whatever the others did, and the reason in a sentence.
    """

    is_linearizable: bool | None
    proof: tuple[Operation, ...] = ()
    reason: str = ""


def cannot_tell(_: Sequence[Operation]) -> Judgement:
    """The shortcut of a model that has none."""
    return Judgement(None)


def never(_: Action) -> bool:
    """No action is a read."""
    return False


@dataclass(frozen=True, slots=True)
class Model:
    """One object as it behaves when one operation follows the other: pure, and the judge of one key.

    `step(state, action)` gives every state that may follow, none when the result is impossible there. An UNKNOWN result allows
    all that the operation could have done. States are hashable, equal states are one.
    `is_read(action)`: this action, with this result, never changes any state. It may stay `never`; the search is faster with it.
    `shortcut(operations)`: an exact and cheap judgement of one key's operations; may stay `cannot_tell`.
    `kinds`: the operations there are, so that a misspelt one is refused also where nobody asks the model about it; none: any.
    """

    name: str
    initial: Hashable
    step: Callable[[Any, Action], Iterable[Hashable]]
    is_read: Callable[[Action], bool] = never
    shortcut: Callable[[Sequence[Operation]], Judgement] = cannot_tell
    kinds: tuple[str, ...] = ()


def show_call(kind: str, argument: Hashable) -> str:
    """An operation as it was asked for: `cas(1, 2)`."""
    if argument is None and kind not in WRITES:
        return kind
    shown = ", ".join(map(show_value, argument)) if isinstance(argument, tuple) else show_value(argument)
    return f"{kind}({shown})"


def show_result(kind: str, argument: Hashable, result: Hashable) -> str:
    """Its answer; none for a bare acknowledgement, which says nothing."""
    if result is None and (argument is not None or kind in CHANGES):
        return ""
    return f" {result}" if result is UNKNOWN else f" -> {show_value(result)}"


def show_value(value: object) -> str:
    """A value as a person reads it: one line, however long it is and whatever is in it."""
    if value is None:
        return "nothing"
    if isinstance(value, frozenset):
        shown = list(map(show_text, sorted(map(str, value))[:SHOWN_ELEMENTS]))
        return "{" + ", ".join(shown) + (f", ... {len(value)} in all" if len(value) > SHOWN_ELEMENTS else "") + "}"
    return show_text(str(value))


def show_text(text: str) -> str:
    """The beginning of a text; where anything in it would not print, as Python writes it between quotes."""
    shown = text[:SHOWN_CHARACTERS]
    if not shown.isprintable():
        shown = shown.encode("unicode_escape").decode()
    is_cut = max(len(text), len(shown)) > SHOWN_CHARACTERS
    return shown[:SHOWN_CHARACTERS] + ("..." if is_cut else "")
