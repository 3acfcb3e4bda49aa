"""Exactly-once effects: what was promised against what was applied at the far end, after the system came to rest.

Ids are those of the operations, not of their attempts. An id is acked when any attempt was acknowledged; unknown when none was
and some attempt may have worked (`record.effect` says so of each). What is neither was refused, or never sent.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lost:
    """Acknowledged and never applied."""

    id: Hashable

    def __str__(self) -> str:
        return f"{self.id} was acknowledged and never applied"


@dataclass(frozen=True, slots=True)
class Duplicated:
    """Applied more than once."""

    id: Hashable
    times: int

    def __str__(self) -> str:
        return f"{self.id} was applied {self.times} times"


@dataclass(frozen=True, slots=True)
class Invented:
    """Applied though nobody sent it, or though it was refused."""

    id: Hashable

    def __str__(self) -> str:
        return f"{self.id} was applied, and was never sent or was refused"


def find_lost(acked: Iterable[Hashable], applied: Iterable[Hashable]) -> list[Lost]:
    """No acknowledged loss: each acked id that was never applied.

    Source: at-least-once delivery, Kafka documentation, "Message Delivery Semantics".
    """
    present = set(applied)
    return [Lost(id_) for id_ in dict.fromkeys(acked) if id_ not in present]


def find_duplicated(applied: Iterable[Hashable]) -> list[Duplicated]:
    """At most one effect: each id applied more than once, acked or not, the worst first. `applied` has an id once per effect."""
    return [Duplicated(id_, times) for id_, times in Counter(applied).most_common() if times > 1]


def find_invented(acked: Iterable[Hashable], unknown: Iterable[Hashable], applied: Iterable[Hashable]) -> list[Invented]:
    """No effect without a cause: each applied id that is neither acked nor unknown."""
    known = {*acked, *unknown}
    return [Invented(id_) for id_ in dict.fromkeys(applied) if id_ not in known]


def check_exactly_once(acked: Iterable[Hashable], unknown: Iterable[Hashable], applied: Iterable[Hashable]) -> list[Lost | Duplicated | Invented]:
    """All three: an acked id takes effect once, an unknown id once or not at all, any other id never."""
    acked, unknown, applied = list(acked), list(unknown), list(applied)
    return [*find_lost(acked, applied), *find_duplicated(applied), *find_invented(acked, unknown, applied)]
