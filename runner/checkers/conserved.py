"""Conserved totals: do the final balances follow from the transfers, when some of these may or may not have happened?

Amounts and balances are whole numbers of the smallest unit (cents). Finals are read after the system came to rest.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.checkers.subset import explain_difference
from runner.history import Outcome

Balances = Mapping[Any, int]


@dataclass(frozen=True, slots=True)
class Transfer:
    """One attempt: `ok` happened, `fail` was refused and left nothing, `unknown` is either. One id is one transfer.

    From a record, take `record.effect` for the outcome: `record.outcome` calls an expected refusal ok.
    """

    id: Hashable
    source: Hashable
    target: Hashable
    amount: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class TotalChanged:
    """Money appeared or vanished."""

    before: int
    after: int

    def __str__(self) -> str:
        change = self.after - self.before
        return f"the total went from {self.before} to {self.after}: {abs(change)} {'appeared' if change > 0 else 'vanished'}"


@dataclass(frozen=True, slots=True)
class BelowFloor:
    """A balance below what the contract allows."""

    account: Hashable
    balance: int
    floor: int

    def __str__(self) -> str:
        return f"account {self.account} holds {self.balance}, below {self.floor}"


@dataclass(frozen=True, slots=True)
class Unexplained:
    """Final balances that no choice among the unknown transfers explains: (account, expected without any unknown, found)."""

    accounts: tuple[tuple[Hashable, int, int], ...]
    unknowns: int

    def __str__(self) -> str:
        shown = ", ".join(f"account {account} holds {found}, not {expected}" for account, expected, found in self.accounts[:4])
        more = f" and {len(self.accounts) - 4} more accounts" if len(self.accounts) > 4 else ""
        tried = f"; no choice among the {self.unknowns} transfers of unknown outcome explains it" if self.unknowns else ""
        return f"{shown}{more}{tried}"


@dataclass(frozen=True, slots=True)
class Miscounted:
    """A ledger that holds a transfer more or less often than its outcome allows; outcome None: it was never asked for."""

    id: Hashable
    outcome: Outcome | None
    times: int

    def __str__(self) -> str:
        if self.outcome is None:
            return f"transfer {self.id} is in the ledger and was never asked for"
        if self.outcome == "fail" and self.times:
            return f"transfer {self.id} was refused and is in the ledger"
        if not self.times:
            return f"transfer {self.id} was acknowledged and is not in the ledger"
        return f"transfer {self.id} is in the ledger {self.times} times"


Violation = TotalChanged | BelowFloor | Unexplained | Miscounted


@dataclass(frozen=True, slots=True)
class Books:
    """What the books show. `undecided` unknown transfers were too many to search: about their accounts nothing is said."""

    violations: tuple[Violation, ...]
    undecided: int = 0


def check_totals(initial: Balances, final: Balances, floor: int | None = 0) -> list[TotalChanged | BelowFloor]:
    """The total is what it was, and no balance is below `floor` (None: any may be). An account that is missing holds 0.

    A transfer of unknown outcome that is all or nothing does not change the total, so unknowns need not be told.
    Source: the bank test of Jepsen (github.com/jepsen-io/jepsen, jepsen.tests.bank).
    """
    before, after = sum(initial.values()), sum(final.values())
    found: list[TotalChanged | BelowFloor] = [] if before == after else [TotalChanged(before, after)]
    if floor is not None:
        found += [BelowFloor(account, balance, floor) for account, balance in final.items() if balance < floor]
    return found


def check_transfers(initial: Balances, final: Balances, transfers: Iterable[Transfer], ledger: Iterable[Hashable] | None = None) -> Books:
    """The finals are the initials plus each ok transfer once, no failed one, and some of the unknown ones.

    With `ledger`, the ids that the system itself recorded as done: an ok id is there once, a failed or strange one never, an
    unknown one at most once; and the finals are the initials plus exactly the ledger. Without it, the unknown ones are
    searched, exactly, up to about 36 that touch each other's accounts; beyond that `undecided` says how many. Never blames a
    right history. Raises ValueError when one id stands for two different transfers.
    """
    known = fold_attempts(transfers)
    by_outcome: dict[Outcome, list[Transfer]] = {"ok": [], "fail": [], "unknown": []}
    for transfer in known.values():
        by_outcome[transfer.outcome].append(transfer)
    violations: list[Violation] = []
    done, unknown = by_outcome["ok"], by_outcome["unknown"]
    if ledger is not None:
        counts = Counter(ledger)
        violations += find_miscounted(known, counts)
        done, unknown = [transfer for transfer in known.values() if counts[transfer.id]], []
    expected = apply_transfers(initial, done)
    missing = {account: final.get(account, 0) - expected.get(account, 0) for account in {**expected, **final}}
    moves = [(transfer.source, transfer.target, transfer.amount) for transfer in unknown]
    contradicted, undecided = explain_difference(missing, moves)
    if contradicted:
        rows = tuple((account, expected.get(account, 0), final.get(account, 0)) for account in missing if account in contradicted)
        tried = sum(1 for source, target, _ in moves if source in contradicted or target in contradicted)
        violations.append(Unexplained(rows, tried))
    return Books(tuple(violations), undecided)


def fold_attempts(transfers: Iterable[Transfer]) -> dict[Hashable, Transfer]:
    """One transfer for each id: ok when any attempt was, else unknown when any was, else failed."""
    rank: Sequence[Outcome] = ("fail", "unknown", "ok")
    folded: dict[Hashable, Transfer] = {}
    for transfer in transfers:
        other = folded.setdefault(transfer.id, transfer)
        if (other.source, other.target, other.amount) != (transfer.source, transfer.target, transfer.amount):
            raise ValueError(f"transfer id {transfer.id!r} stands for two transfers: {other} and {transfer}")
        if rank.index(transfer.outcome) > rank.index(other.outcome):
            folded[transfer.id] = transfer
    return folded


def find_miscounted(known: Mapping[Hashable, Transfer], counts: Mapping[Hashable, int]) -> list[Miscounted]:
    """The ids that the ledger holds too often, or not at all though they were acknowledged."""
    allowed: Mapping[Outcome, tuple[int, ...]] = {"ok": (1,), "fail": (0,), "unknown": (0, 1)}
    found = [
        Miscounted(transfer.id, transfer.outcome, counts.get(transfer.id, 0))
        for transfer in known.values()
        if counts.get(transfer.id, 0) not in allowed[transfer.outcome]
    ]
    return found + [Miscounted(id_, None, times) for id_, times in counts.items() if id_ not in known]


def apply_transfers(initial: Balances, transfers: Iterable[Transfer]) -> dict[Hashable, int]:
    """The balances after all of them."""
    balances = dict(initial)
    for transfer in transfers:
        balances[transfer.source] = balances.get(transfer.source, 0) - transfer.amount
        balances[transfer.target] = balances.get(transfer.target, 0) + transfer.amount
    return balances
