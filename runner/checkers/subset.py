"""Whether some of a set of moves explain a difference in balances: subset sum over accounts, exact and bounded."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

Move = tuple[Hashable, Hashable, int]  # source, target, amount

STATES = 1 << 18  # partial sums held for one half of a component: about 0.2 s and 30 MB, and above 100 MB where dozens of accounts make each sum long


def explain_difference(missing: Mapping[Any, int], moves: Sequence[Move], states: int = STATES) -> tuple[set[Hashable], int]:
    """The accounts whose `missing` no subset of the moves explains, and how many moves were too many to decide.

    Each account is judged with those that moves connect it to. First what is forced (an account with one move left has either
    got it or not), then the rest by meeting in the middle: Horowitz and Sahni, Computing Partitions with Applications to the
    Knapsack Problem, JACM 21(2) 1974.
    """
    rest = {account: amount for account, amount in missing.items() if amount}
    contradicted: set[Hashable] = set()
    undecided = 0
    real = [move for move in moves if move[0] != move[1] and move[2]]
    for component in connect(real):
        accounts = {account for move in component for account in move[:2]}
        goal = {account: rest.pop(account, 0) for account in accounts}
        verdict = has_subset(dict(goal), component, states)
        if verdict is None:
            undecided += len(component)
        elif not verdict:
            contradicted |= {account for account in accounts if goal[account]}
    return contradicted | set(rest), undecided


def has_subset(goal: dict[Hashable, int], moves: Sequence[Move], states: int) -> bool | None:
    """Whether some of the connected moves sum to `goal` (which is consumed); None when the search would not fit in `states`."""
    left = settle_forced(goal, moves)
    if left is None:
        return False
    return is_in_reach(goal, left) and meet_in_the_middle(goal, left, states)


def settle_forced(goal: dict[Hashable, int], moves: Sequence[Move]) -> list[Move] | None:
    """Take or drop every move of which an account leaves no choice; the moves still open, or None for a contradiction."""
    open_moves = dict(enumerate(moves))
    by_account: dict[Hashable, set[int]] = {account: set() for account in goal}
    for number, (source, target, _) in open_moves.items():
        by_account[source].add(number)
        by_account[target].add(number)
    pending = list(by_account)
    while pending:
        account = pending.pop()
        own = by_account[account]
        if len(own) > 1:
            continue
        if not own:
            if goal[account]:
                return None
            continue
        number = own.pop()
        source, target, amount = open_moves.pop(number)
        if goal[account]:
            goal[source] += amount
            goal[target] -= amount
            if goal[account]:
                return None
        other = target if account == source else source
        by_account[other].discard(number)
        pending.append(other)
    return list(open_moves.values())


def is_in_reach(goal: Mapping[Hashable, int], moves: Sequence[Move]) -> bool:
    """What every subset obeys: moves keep the total, and no account gets or gives more than all of its moves do."""
    low: dict[Hashable, int] = {}
    high: dict[Hashable, int] = {}
    for source, target, amount in moves:
        for account, change in ((source, -amount), (target, amount)):
            low[account] = low.get(account, 0) + min(change, 0)
            high[account] = high.get(account, 0) + max(change, 0)
    return sum(goal[account] for account in low) == 0 and all(low[account] <= goal[account] <= high[account] for account in low)


def meet_in_the_middle(goal: Mapping[Hashable, int], moves: Sequence[Move], states: int) -> bool | None:
    """Whether a sum of the first half and a sum of the second make `goal`; None when either half has too many sums."""
    accounts = {account: place for place, account in enumerate({account: None for move in moves for account in move[:2]})}
    # One whole number stands for a vector of balances: a digit each, in a base that no partial sum can leave.
    base = 2 * (sum(abs(amount) for *_, amount in moves) + sum(abs(goal[account]) for account in accounts)) + 1
    steps = [amount * (base ** accounts[target] - base ** accounts[source]) for source, target, amount in moves]
    target_sum = sum(goal[account] * base**place for account, place in accounts.items())
    middle = len(steps) // 2
    first, second = reachable_sums(steps[:middle], states), reachable_sums(steps[middle:], states)
    if first is None or second is None:
        return None
    return any(target_sum - reached in second for reached in first)


def reachable_sums(steps: Sequence[int], states: int) -> Collection[int] | None:
    """Every sum of some of the steps; None when there are more than `states`."""
    sums = {0}
    for step in steps:
        sums |= {reached + step for reached in sums}
        if len(sums) > states:
            return None
    return sums


def connect(moves: Sequence[Move]) -> list[list[Move]]:
    """The moves in groups that share no account."""
    leader: dict[Hashable, Hashable] = {}

    def find(account: Hashable) -> Hashable:
        root = account
        while (above := leader.setdefault(root, root)) != root:
            root = above
        while account != root:
            leader[account], account = root, leader[account]
        return root

    for source, target, _ in moves:
        leader[find(source)] = find(target)
    groups: dict[Hashable, list[Move]] = {}
    for move in moves:
        groups.setdefault(find(move[0]), []).append(move)
    return list(groups.values())
