"""MySQL locking: thirty-two payers, two hot accounts, two replicas, a fraud service that takes its time, and one account locked from outside."""

from collections import Counter
from dataclasses import dataclass, field

import pymysql
import pytest

from runner.checkers.conserved import Transfer, check_totals, check_transfers
from runner.checkers.intervals import peak_overlap

RICH = 10**9  # cents: enough for everything that is asked of an account
TIGHT = 50_000  # enough for five of the 32 transfers that are asked for at once
TRANSFERS = 1200
USERS = 32
DEADLOCKS = "SELECT count AS n FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'"


@dataclass
class Payday:
    """What was there before, what happened, and what is there now."""

    load: object
    initial: dict
    final: dict = field(default_factory=dict)
    ledger: list = field(default_factory=list)
    deadlocks: int = 0
    calls: list = field(default_factory=list)
    suspicious: set = field(default_factory=set)
    tight: list = field(default_factory=list)
    held: int = 0
    done_while_held: int | None = None

    def right_answers(self, record):
        """The statuses that may answer a request."""
        if record.context["id"] in self.suspicious:
            return (403,)
        return (200, 409) if record.context["from"] in self.tight else (200,)

    def transfers(self):
        outcomes = {200: "ok", 403: "fail", 409: "fail"}
        return [
            Transfer(r.context["id"], r.context["from"], r.context["to"], r.context["amount"], outcomes.get(r.status, "unknown"))
            for r in self.load.history
        ]


@pytest.fixture(scope="module")
def payday(lab):
    """1,200 transfers; meanwhile a session of the kit holds the row of one cold account until 150 other transfers are done."""
    ids = lab.random.sample(range(1000, 100_000), 45)
    hot, cold, tight = ids[:2], ids[2:42], ids[42:]
    run = f"run-{lab.random.randrange(10**9)}"
    day = Payday(None, dict.fromkeys(ids, RICH) | dict.fromkeys(tight, TIGHT), tight=tight, held=cold[0])
    day.suspicious = {f"{run}-{n}" for n in lab.random.sample(range(5 * USERS, TRANSFERS), 80)}
    fraud = lab.peer("fraud")
    fraud.set(suspicious=sorted(day.suspicious))
    with lab.mysql() as watch, watch.cursor() as cursor, lab.mysql() as holder, holder.cursor() as hold:

        def ask(query):
            cursor.execute(query)
            return cursor.fetchall()

        def done():
            return ask("SELECT COUNT(*) AS n FROM transfers")[0]["n"]

        def lock():
            try:
                return hold.execute("SELECT balance FROM accounts WHERE id = %s FOR UPDATE NOWAIT", (day.held,))
            except pymysql.err.OperationalError:  # the app has it: for a moment, or for good
                return 0

        # The app has been there before, and may have added columns.
        cursor.executemany("INSERT INTO accounts (id, balance) VALUES (%s, %s)", list(day.initial.items()))
        before = ask(DEADLOCKS)[0]["n"]
        plan = {"run": run, "hot": hot, "cold": cold, "tight": tight, "transfers": TRANSFERS, "users": USERS}
        with lab.load(users=USERS, at_most_s=15, plan=plan) as day.load:
            day.load.until(lambda: done() >= 100, "100 transfers")
            try:
                holder.begin()
                day.load.until(lock, "an account that the kit could lock")
                lab.mark(f"the kit locks account {day.held}")
                day.load.until(lambda: waiting(fraud.calls(), day, ask), "a transfer that wants the locked account")
                so_far, since = done(), day.load.elapsed_s
                day.load.until(lambda: done() >= so_far + 150 or day.load.elapsed_s > since + 5, "other transfers")
                day.done_while_held = done() - so_far
            finally:
                holder.rollback()
                lab.mark("and lets it go")
        # A transfer may still be under way: both tables are read as they are at one instant.
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        day.final = {row["id"]: row["balance"] for row in ask("SELECT id, balance FROM accounts")}
        day.ledger = [row["id"] for row in ask("SELECT id FROM transfers")]
        watch.commit()
        day.deadlocks = ask(DEADLOCKS)[0]["n"] - before
    day.calls = fraud.calls()
    return day


def waiting(calls, day, ask):
    """The transfers of the locked account that the fraud service has let pass, and that are not done: they are waiting for its row."""
    mine = [c for c in calls if c["end_ns"] and day.held in c.get("accounts", ())]
    checked = {c["id"] for c in mine if c["accounts"][0] not in day.tight} - day.suspicious  # these may have been refused
    return checked - {row["id"] for row in ask("SELECT id FROM transfers")}  # asked for last: what was done meanwhile is not waiting


def test_the_contract_holds(payday, lab):
    """POST /transfers answers 200 when the sender has enough, 409 only when it has not, 403 only when the fraud service objects: 99% of the time.

    Why: payers get errors that are the service's own affair.
    """
    asked = payday.load.history
    wrong = [r for r in asked if r.status not in payday.right_answers(r)]
    kinds = Counter(f"status {r.status}" for r in wrong).most_common(3)
    for account in payday.tight if len(asked) >= 200 else ():  # by then all of their transfers have been asked for
        answers = [r.status for r in asked if r.context["from"] == account]
        if set(answers) <= {200, 409}:
            assert answers.count(200) >= 5, f"{answers.count(200)} of 5 transfers passed that an account had enough for"
    if any(r.status == 200 for r in asked) and sum((r.status or 500) < 500 for r in wrong) <= 0.01 * len(asked):
        lab.require_calm(payday.load)  # slowness explains late answers and 5xx, but no other status, and not that nothing is done
    assert len(asked) >= 200, f"thirty-two payers got only {len(asked)} answers: they wait for each"
    lab.at_most(len(wrong) / len(asked), 0.01, f"{len(wrong)} of {len(asked)} answers were not the right ones: {kinds}", "wrong answers")


def test_a_transfer_that_the_fraud_service_rejects_is_not_done(payday, lab):
    """No transfer is done to which the fraud service says no.

    Why: the money moves before the answer is there, or without it.
    """
    tried = {r.context["id"] for r in payday.load.history if r.context["id"] in payday.suspicious}
    lab.require(len(tried) >= 5, f"only {len(tried)} suspicious transfers were asked for")
    done = sorted(tried & set(payday.ledger) | {r.context["id"] for r in payday.load.history if r.status == 200} & tried)
    assert not done, f"{len(done)} of {len(tried)} rejected transfers were done, such as {done[0]}"


def test_money_is_conserved(payday, lab):
    """The sum of all balances is what it was, and no balance is negative.

    Why: a balance was computed from a value that another transfer had changed in the meantime, or was not checked at all.
    """
    lab.require(len(payday.ledger) >= 100, f"only {len(payday.ledger)} transfers were done")
    violations = check_totals(payday.initial, payday.final)
    assert not violations, "\n".join(map(str, violations[:3]))


def test_a_transfer_counts_once(payday, lab):
    """Balances and the table `transfers` show every acknowledged transfer exactly once, and no refused one.

    Why: a client's second try moves the money again, or a part of a transaction was done without the rest.
    """
    again = Counter(r.context["id"] for r in payday.load.history)
    lab.require(sum(n > 1 for n in again.values()) >= 5, "hardly any transfer was sent twice")
    books = check_transfers(payday.initial, payday.final, payday.transfers(), ledger=payday.ledger)
    assert not books.violations, "\n".join(map(str, books.violations[:3]))


def test_deadlocks_are_rare(payday, lab):
    """InnoDB finds at most one deadlock per 100 transfers.

    Why: two transfers take the same two rows in opposite order, and each waits for what the other holds.
    """
    done = len(payday.ledger)
    lab.require(done >= 100, f"only {done} transfers were done")
    lab.at_most(100 * payday.deadlocks / done, 1, f"{payday.deadlocks} deadlocks in {done} transfers", "deadlocks per 100 transfers")


def test_no_lock_is_held_across_the_fraud_check(payday, lab):
    """While one transfer of an account is at the fraud service, others of the same account get there too: 4 at once at the least.

    Why: a row lock is held while the fraud service thinks, so a hot account moves ten times a second at most.
    """
    lab.require(len(payday.calls) >= 100, f"the fraud service was asked only {len(payday.calls)} times")
    peaks = {
        account: peak_overlap((c["start_ns"], c["end_ns"]) for c in payday.calls if c["end_ns"] and account in c.get("accounts", ()))
        for account in payday.initial
    }
    account = max(peaks, key=peaks.get)
    seen = f"never more than {peaks[account]} transfers of one account were being checked"
    lab.at_least(peaks[account], 4, seen, "checks of one account at once")


def test_one_locked_account_stops_nobody_else(payday, lab):
    """While one account's row is locked from outside, at least 60 transfers between other accounts are done.

    Why: transfers wait for a lock that is wider than the two rows they need.
    """
    lab.require(payday.done_while_held is not None, f"the load ended before {payday.load.missed}")
    done = payday.done_while_held
    lab.at_least(done, 60, f"{done} transfers were done while one account was locked", "transfers past a locked account")
