"""Attacks and their honest twins: what the locustfile of a security lab fires, with fresh values each time, and what its checks ask of the history.

An attack must be refused, and its twin, which is like it but for the one thing that makes the other an attack, must be served. So neither an app
that lets all in passes, nor one that refuses what looks odd.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from runner.history import History, Record

T = TypeVar("T")


class Draw(Random):
    """The random values of one shot."""

    def __init__(self, seed: object, turn: int) -> None:
        super().__init__(f"{seed}/{turn}")
        self._first = Random(str(seed))
        self._turn = turn

    def vary(self, forms: Sequence[T]) -> T:
        """Another one of `forms` at each firing of an attack: none comes again before all have been."""
        return forms[(self._first.randrange(len(forms)) + self._turn) % len(forms)]


Make = Callable[[Draw], Any]


@dataclass(frozen=True)
class Attack:
    """One way in. `forge` and `twin` draw fresh values and make whatever the locustfile knows how to send."""

    name: str
    forge: Make
    twin: Make


@dataclass(frozen=True)
class Shot:
    """One firing of an attack, or of its twin, at one replica."""

    attack: str
    is_twin: bool
    replica: int
    seed: str
    turn: int  # of the firings of this attack, from 0
    make: Make

    def draw(self) -> Any:
        """What to send. Made when it is fired, since tokens and nonces are dated; the same values for the same seed."""
        return self.make(Draw(self.seed, self.turn))

    @property
    def context(self) -> dict[str, Any]:
        """For the request's `context`: it goes to this shot's replica, and the history knows it by this."""
        return {"attack": self.attack, "is_twin": self.is_twin, "replica": self.replica}


def draw_shots(attacks: Sequence[Attack], seed: object, *, each: int, replicas: int) -> list[Shot]:
    """Every attack and every twin `each` times at each replica, in an order that tells nothing: the next may be either."""
    shots = [
        Shot(attack.name, is_twin, turn % replicas + 1, f"{seed}/{attack.name}/{is_twin}", turn, attack.twin if is_twin else attack.forge)
        for attack in attacks
        for is_twin in (False, True)
        for turn in range(each * replicas)
    ]
    Random(f"{seed}/shots").shuffle(shots)
    return shots


def find_breaches(history: History) -> list[Record]:
    """The attacks that were served: answered with a 2xx, however the locustfile judged it."""
    return [record for record in history.where(is_twin=False) if record.status is not None and 200 <= record.status < 300]


def find_refused_twins(history: History) -> list[Record]:
    """The twins that were answered, and not as the contract says."""
    return list(history.where(is_twin=True, outcome="fail"))


def count_answered(history: History) -> dict[tuple[str, bool], int]:
    """How often each attack (False) and each twin (True) was answered for certain: neither a 5xx nor no answer at all."""
    shots = history.where(lambda r: "is_twin" in r.context)
    keys = dict.fromkeys((record.context["attack"], record.context["is_twin"]) for record in shots)
    answered = Counter((record.context["attack"], record.context["is_twin"]) for record in shots if record.outcome != "unknown")
    return {key: answered[key] for key in keys}


def describe(records: Iterable[Record]) -> str:
    """Which attacks these are, for a message: `alg-none (3), wrong-audience (2)`."""
    return ", ".join(f"{name} ({n})" for name, n in Counter(record.context["attack"] for record in records).most_common(5))
