"""The links between the replicas of an app whose lab.toml says `mesh`: each directed pair has one, and a scenario can cut any of them."""

import time
from collections.abc import Callable, Collection, Iterable
from itertools import combinations, permutations

from runner.errors import LabError
from runner.wire import Control, Wire, link_name

Pair = tuple[int, int]  # the numbers of the caller and of the called


class Cut:
    """Links that were cut at the same instant, until they are healed."""

    def __init__(self, control: Control, faults: dict[str, int], heal: Callable[["Cut"], None]) -> None:
        self._control = control
        self._heal = heal
        self.faults = faults  # link -> the fault's number on it
        self.at_ns = time.monotonic_ns()  # when it was in effect
        self.healed_ns: int | None = None

    def fired(self) -> int:
        """How many messages and connections it has hurt."""
        links = self._control.ask("GET", "/links")
        return sum(fault["fired"] for name, number in self.faults.items() for fault in links[name]["faults"] if fault["fault"] == number)

    def heal(self) -> None:
        """End it, unless it has ended; connections that lost something are reset."""
        if self.healed_ns is None:
            self._heal(self)


class Mesh:
    """What a test gets as `lab.mesh`. Replicas are named by their numbers, from 1.

    A link carries the connections that one replica opens to another, with their answers. On a cut link everything vanishes in both directions
    and nobody is told, as when packets are dropped. With `refuse` its connections are reset and new ones refused, as by a host with a closed port.
    """

    def __init__(self, control: Control, numbers: Collection[int], mark: Callable[[str], object]) -> None:
        self._control = control
        self._mark = mark
        self.numbers = frozenset(numbers)

    def link(self, caller: int, called: int) -> Wire:
        """The connections that one replica opens to another, for any fault of a wire. Raises LabError when there is no such pair."""
        self._check({(caller, called)})
        return Wire(link_name(caller, called), self._control)

    def cut(self, one: int, other: int, *, one_way: bool = False, refuse: bool = False) -> Cut:
        """Cut two replicas from each other; `one_way`: only what `one` asks of `other`."""
        shown = f"cut app-{one} {'->' if one_way else '<->'} app-{other}"
        return self._cut({(one, other)} if one_way else {(one, other), (other, one)}, shown, refuse=refuse)

    def partition(self, *groups: Iterable[int], refuse: bool = False) -> Cut:
        """Cut every replica from those of other groups, all at the same instant. Who is in no group is a group of its own."""
        sets = [set(group) for group in groups]
        for one, other in combinations(sets, 2):
            if both := one & other:
                raise LabError(f"partition: {', '.join(f'app-{n}' for n in sorted(both))} would be in two groups")
        alone = [{number} for number in self.numbers - set().union(*sets)]
        pairs = {pair for a, b in permutations([*sets, *alone], 2) for pair in ((x, y) for x in a for y in b)}
        shown = " | ".join(" ".join(f"app-{n}" for n in sorted(group)) for group in [*sets, *sorted(alone, key=min)])
        return self._cut(pairs, f"partition: {shown}", refuse=refuse)

    def isolate(self, number: int, *, refuse: bool = False) -> Cut:
        """Cut one replica from all others."""
        return self.partition({number}, self.numbers - {number}, refuse=refuse)

    def heal(self) -> int:
        """End every fault of every link; returns when (monotonic ns)."""
        self._control.ask("POST", "/heal", {"faults": dict.fromkeys(link_name(*pair) for pair in permutations(sorted(self.numbers), 2))})
        self._mark("healed all links")
        return time.monotonic_ns()

    def _cut(self, pairs: Collection[Pair], shown: str, *, refuse: bool) -> Cut:
        self._check(pairs)
        names = [link_name(*pair) for pair in sorted(pairs)]
        told = self._control.ask("POST", "/arm", {"links": names, "kind": "cut" if refuse else "black_hole"})
        cut = Cut(self._control, {name: fault["fault"] for name, fault in zip(names, told, strict=True)}, self._end)
        self._mark(shown)
        return cut

    def _end(self, cut: Cut) -> None:
        self._control.ask("POST", "/heal", {"faults": cut.faults})
        cut.healed_ns = time.monotonic_ns()
        self._mark(f"healed {len(cut.faults)} links")

    def _check(self, pairs: Iterable[Pair]) -> None:
        for caller, called in sorted(pairs):
            if caller == called or not {caller, called} <= self.numbers:
                known = ", ".join(map(str, sorted(self.numbers)))
                raise LabError(f"no link leads from replica {caller} to replica {called}", hint=f"two different of {known}")
