"""Exactly-once effects: ten clerks, three workers, a bank; deaths between effect and commit, lost answers, slow payments, poison."""

import json
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from runner.checkers.delivery import find_duplicated, find_invented, find_lost
from runner.services import group_offsets, load_kafka, topic_ends, topic_records

WORKERS = ("worker-1", "worker-2", "worker-3")
PARTITIONS = 6
CALM_EACH = 8  # so many payments of each worker before the first fault
TAKEN_WITHIN_S = 7.0
SLOW_S = 6.0  # how long a person looks at a large payment: auto-commit, each 5 s, falls into it
SLOW_AT_MOST_S = 9.0  # if others wait for it, for so long
SETTLED_WITHIN_S = 10.0
COMMITTED_WITHIN_S = 5.0  # the README says 3
DONE_BEFORE_S = 5.0  # what was paid so long before a death is committed by then
AGAIN_AT_MOST = 0.4  # of that: what was paid behind a large payment, in its partition, could not be committed


@dataclass
class Death:
    """A worker is dead, and since then a credit has come to each partition but those of large payments."""

    workers: tuple
    at_ns: int
    waiting: int  # credits that nobody has paid yet
    took_s: float = 0.0


class Payday:
    """The run: its load, what the kit itself has published, and what the bank saw."""

    def __init__(self, lab, load, producer, run):
        self.lab, self.load, self.producer, self.run = lab, load, producer, run
        self.bank, self.kafka = lab.peer("bank"), lab.address("kafka")
        self.published = {}  # id -> credit, by the kit
        self.poison = {}  # what it is -> bytes
        self.deaths = []
        self.lost = self.broken = None  # the faults of the connections to the bank, once they break
        self.slow_ids = []
        self.held_up = None  # of the credits in other partitions, how many waited for the large one
        self.held_s = 0.0
        self.calm_end_ns = None  # until then nobody had died or started since the first large payment began
        self.started_ns = 0  # when the two that had died were started again
        self.asked, self.asked_at = [], 0.0
        self.ends, self.committed, self.dead_letters = {}, {}, []

    def break_connections(self):
        """From now on some answers of the bank are lost, and some requests never reach it."""
        self.lost = self.lab.wire("bank").lose_reply(when="^POST", every=30)
        self.broken = self.lab.wire("bank").cut(when="^POST", every=35, scope="connection")

    # What the kit publishes, as the other systems do: straight into the topic.

    def draw_credit(self):
        """A credit for an account that no clerk pays to: on some of them the bank is to fail."""
        draw = self.lab.random.randrange
        return {"id": f"{self.run}-{draw(10**12)}", "account": f"acc-{draw(10**12)}", "amount": draw(1, 10_000)}

    def publish(self, partition, credit=None):
        credit = credit or self.draw_credit()
        self.put(partition, json.dumps(credit).encode())
        self.published[credit["id"]] = credit
        return credit["id"]

    def put(self, partition, value):
        self.producer.send("credits", value, partition=partition).get(timeout=10)

    def publish_slow(self, partition):
        """A large credit: the bank lets a person look at it."""
        credit = self.draw_credit()
        self.slow_ids.append(credit["id"])
        self.bank.set(slow=self.slow_ids)
        return self.publish(partition, credit)

    def publish_faltering(self, partition):
        """A credit for which the bank fails four times."""
        credit = self.draw_credit()
        self.bank.set(faltering=[credit["id"]])
        return self.publish(partition, credit)

    # What the bank saw.

    def calls(self):
        """All that it was asked; not asked for more than 20 times a second, since a held payment makes every answer long."""
        if time.monotonic() - self.asked_at > 0.05:
            self.asked_at, self.asked = time.monotonic(), self.bank.calls()
        return self.asked

    def unpaid(self, ids):
        return set(ids) - {c["reference"] for c in self.calls() if c.get("paid")}

    def payers(self, since_ns=0):
        return Counter(c["replica"] for c in self.calls() if c.get("paid") and c["start_ns"] > since_ns)

    def attempts(self, name):
        return [c for c in self.calls() if c.get("reference") == name]

    def quiet_s(self):
        """Seconds since the bank's last answer, 0 while one is due."""
        ends = [c["end_ns"] for c in self.calls()]
        return 0.0 if None in ends else (time.monotonic_ns() - max(ends, default=0)) / 1e9

    def await_takeover(self, workers, partitions):
        """A credit in each of these partitions is paid by somebody who lives."""
        death = Death(tuple(workers), time.monotonic_ns(), len(partitions))
        self.deaths.append(death)
        probes = [self.publish(partition) for partition in partitions]

        def is_over():
            death.waiting = len(self.unpaid(probes))
            death.took_s = (time.monotonic_ns() - death.at_ns) / 1e9
            return not death.waiting

        self.load.until(is_over, "somebody who takes over", at_most_s=1.6 * TAKEN_WITHIN_S)


@pytest.fixture(scope="module")
def payday(lab):
    """A large payment; then two workers die in a payment, and start again; then one dies beside two large payments; then poison."""
    address, run = lab.address("kafka"), f"run-{lab.random.randrange(10**9)}"
    producer = load_kafka().KafkaProducer(bootstrap_servers=f"{address.host}:{address.port}")
    with producer:
        with lab.load(users=10, endless=True, at_most_s=60, plan={"run": run}) as load:
            payday = Payday(lab, load, producer, run)
            load.until(lambda: min(payday.payers()[w] for w in WORKERS) >= CALM_EACH, "payments by all three workers", at_most_s=12)
            asking, partition = pay_slowly(lab, payday)
            payday.break_connections()  # not sooner, so that who asks twice for a large payment has no excuse
            kill_two(lab, payday, asking, partition)
            kill_beside_slow_payments(lab, payday)
            poison(lab, payday)
        lab.mark("the clerks have gone home")
        settle(lab, payday)
    return payday


def pay_slowly(lab, payday):
    """A large payment; meanwhile a credit comes to each other partition, and to one a large one as well: its worker, and that partition.

    Before that one come two records that a wrong key takes for something else, and a credit that the bank pays at the fifth try.
    """
    partition = lab.random.randrange(PARTITIONS)
    name = payday.publish_slow(partition)
    payday.load.until(lambda: payday.attempts(name), "a large payment", at_most_s=6)
    since_ns = lab.mark("a person looks at a large payment")
    probes = {payday.publish(other): other for other in range(PARTITIONS) if other != partition}

    def looked_s():
        return (time.monotonic_ns() - since_ns) / 1e9

    def are_paid():
        payday.held_up, payday.held_s = len(payday.unpaid(probes)), looked_s()
        return not payday.held_up or payday.held_s > SLOW_AT_MOST_S

    payday.load.until(are_paid, "credits in other partitions")
    late = payday.unpaid(probes)
    order = lab.random.sample(list(probes), len(probes))
    order.sort(key=lambda probe: probe in late)  # those that are paid come first
    one, other = order[:2]
    payday.put(probes[one], rewrite(payday.published[one]))
    payday.publish(probes[one], {**payday.published[one], "id": payday.draw_credit()["id"]})  # as much to the same account: another credit
    payday.publish_faltering(probes[other])
    second = payday.publish_slow(probes[one])
    asking = payday.load.until(lambda: payday.attempts(second), "a second large payment", at_most_s=6)[0]["replica"]
    end_s = min(looked_s() + SLOW_S, SLOW_AT_MOST_S)  # so whoever commits what is not paid yet has the time to do so

    def is_seen():
        payday.held_s = looked_s()
        return payday.held_s > end_s

    payday.load.until(is_seen, "the end of a long look")
    payday.bank.set(seen=[name])
    payday.load.until(lambda: not payday.unpaid([name, *probes]), "the end of a large payment", at_most_s=6)
    return asking, probes[one]


def rewrite(credit):
    """The same credit in other bytes: another order, other spaces, one more field, and an id in escapes."""
    text = json.dumps({"note": "once more", **dict(reversed(credit.items()))}, indent=1)
    return text.replace(credit["id"], "".join(f"\\u{ord(letter):04x}" for letter in credit["id"])).encode()


def kill_two(lab, payday, asking, partition):
    """One worker dies before its large payment is made, one when the bank has paid and not answered; then both start again."""
    payday.bank.set(catch=[asking])
    paid = payday.load.until(lambda: [c for c in payday.calls() if c.get("caught")], "a payment whose answer can be kept", at_most_s=8)[0]
    dead = [asking, paid["replica"]]
    payday.calm_end_ns = time.monotonic_ns()
    for worker in dead:
        lab.kill(worker)
    payday.bank.set(seen=payday.slow_ids, released=[c["n"] for c in payday.bank.calls() if c["replica"] in dead])
    payday.await_takeover(dead, [n for n in range(PARTITIONS) if n != partition])
    payday.started_ns = lab.mark("both start again")
    for worker in dead:
        lab.restart(worker)
    payday.load.until(lambda: len(payday.payers(payday.started_ns)) == len(WORKERS), "payments by all three workers after a restart", at_most_s=12)


def kill_beside_slow_payments(lab, payday):
    """A worker dies while another one has two large payments at the bank, which end only when somebody has taken over."""
    probes = {payday.publish(partition): partition for partition in lab.random.sample(range(PARTITIONS), PARTITIONS)}
    payday.load.until(lambda: not payday.unpaid(probes), "a credit from each partition after the restart", at_most_s=6)
    payer = {c["reference"]: c["replica"] for c in payday.calls() if c.get("paid")}
    holder = Counter(payer[name] for name in probes).most_common(1)[0][0]  # of six partitions one of three workers has two
    large = [partition for name, partition in probes.items() if payer[name] == holder][:2]
    names = [payday.publish_slow(partition) for partition in large]
    asking = payday.load.until(lambda: {c["replica"] for name in names for c in payday.attempts(name)}, "another large payment", at_most_s=6)
    victim = lab.random.choice([worker for worker in WORKERS if worker not in asking] or WORKERS)
    lab.kill(victim)
    try:
        payday.await_takeover([victim], [n for n in range(PARTITIONS) if n not in large])
    finally:
        payday.bank.set(seen=payday.slow_ids)


def poison(lab, payday):
    """Six records that can never be paid, each in a partition of its own, and a credit behind each."""
    closed, broken, torn, worded = (payday.draw_credit() for _ in range(4))
    payday.bank.set(closed=[closed["account"]], broken=[broken["account"]])
    payday.poison = {
        "no JSON": b"\xff\xfe" + lab.random.randbytes(20),
        "no object": json.dumps([lab.random.randrange(10**9)]).encode(),
        "no amount": json.dumps({"id": torn["id"], "account": torn["account"]}, indent=lab.random.randrange(1, 5)).encode(),
        "an amount that is a string": json.dumps({**worded, "amount": str(worded["amount"])}).encode(),
        "a closed account": json.dumps(closed, separators=(", ", " : ")).encode(),
        "an account on which the bank fails": json.dumps(broken).encode(),
    }
    lab.mark("poison")
    behind = []
    for partition, value in zip(lab.random.sample(range(PARTITIONS), len(payday.poison)), payday.poison.values(), strict=True):
        payday.put(partition, value)
        behind.append(payday.publish(partition))
    payday.load.until(lambda: not payday.unpaid(behind), "the credits behind the poison", at_most_s=8)


def settle(lab, payday):
    """All is paid and committed, or the time for it is over."""
    # A scenario that ended early has left payments waiting at the bank, which is no fault of who asked for them.
    payday.bank.set(catch=None, seen=payday.slow_ids)
    payday.bank.set(released=[c["n"] for c in payday.bank.calls() if c.get("caught")])

    def lag():
        payday.ends = topic_ends(payday.kafka, "credits")
        committed = group_offsets(payday.kafka, "payroll")
        payday.committed = {partition: committed.get(("credits", partition), 0) for partition in payday.ends}
        return sum(payday.ends.values()) - sum(payday.committed.values())

    due = accepted(payday)
    is_paid = lab.until(lambda: not payday.unpaid(due), at_most_s=SETTLED_WITHIN_S)
    lab.until(lambda: lag() == 0 or payday.quiet_s() > COMMITTED_WITHIN_S, at_most_s=SETTLED_WITHIN_S if is_paid else 0)
    payday.asked, payday.dead_letters = payday.bank.calls(), topic_records(payday.kafka, "credits-dead")


def accepted(payday):
    """Every credit that was accepted from a clerk or published by the kit, by its id."""
    return {r.context["credit"]["id"]: r.context["credit"] for r in payday.load.history if r.status in (200, 202)} | payday.published


def test_the_contract_holds(payday, lab):
    """A credit is answered with 202 and lies in the topic, at least 95% of the time, and all three workers pay, after a restart too.

    Why: credits are refused, or do not go through the topic, or one worker does all the work.
    """
    lab.require_calm(payday.load)
    asked = payday.load.history
    assert len(asked) >= 20, f"only {len(asked)} requests were answered"
    wrong = [r for r in asked if r.status != 202]
    lab.at_most(len(wrong) / len(asked), 0.05, f"{len(wrong)} of {len(asked)} answers were not 202", "other answers")
    posted = sum(r.status == 202 for r in asked)
    records = sum(payday.ends.values())
    assert records >= posted, f"{posted} credits were accepted, and the topic has {records} records"
    idle = [worker for worker in WORKERS if not payday.payers(payday.started_ns)[worker]]
    assert not idle, f"{', '.join(idle)} paid nothing{' after the restart of two' if payday.started_ns else ''}"


def test_every_credit_is_paid(payday, lab):
    """Every accepted credit is paid, as it was sent, at most 10 s after the last one came.

    Why: a credit was committed or given up before it was paid.
    """
    due = accepted(payday)
    lab.require(len(due) >= 100, f"only {len(due)} credits were accepted")
    paid = [c for c in payday.asked if c.get("paid")]
    lost = find_lost(due, [c["reference"] for c in paid])
    assert not lost, f"{len(lost)} of {len(due)} credits were never paid, such as {', '.join(x.id for x in lost[:3])}"
    other = [c for c in paid if c["reference"] in due and any(c[part] != due[c["reference"]][part] for part in ("account", "amount"))]
    assert not other, f"{len(other)} credits were paid otherwise than they were sent, such as {other[0]['reference']}"
    lab.require(len(payday.deaths) == 2, f"{payday.load.missed} did not come")
    broken = payday.broken.fired() if payday.broken else 0
    lab.require(broken >= 3, f"only {broken} requests broke off before the bank had them")


def test_no_credit_is_paid_twice(payday, lab):
    """No credit is paid twice: not when a worker dies, not when an answer is lost, not when it was posted twice.

    Why: the bank cannot see that it is asked for the same payment again.
    """
    due = accepted(payday)
    possible = [r.context["credit"]["id"] for r in payday.load.history if r.effect != "fail"]
    paid = [c["reference"] for c in payday.asked if c.get("paid")]
    twice = find_duplicated(paid)
    assert not twice, f"{len(twice)} of {len(set(paid))} credits were paid more than once: {', '.join(map(str, twice[:3]))}"
    invented = find_invented(due, possible, paid)
    assert not invented, f"{len(invented)} payments were made that nobody had sent, such as {invented[0].id}"
    lab.require(payday.deaths, f"no worker died in a payment: {payday.load.missed} did not come")
    lost = payday.lost.fired() if payday.lost else 0
    lab.require(lost >= 3, f"only {lost} answers of the bank were lost")


def test_poison_is_parked(payday, lab):
    """Each record that can never be paid lies in `credits-dead`, byte for byte and with a `reason`; nothing else does.

    Why: a record that fails is dropped, changed, or tried for ever.
    """
    parked = {}
    for record in payday.dead_letters:
        parked.setdefault(record.value, []).append(dict(record.headers or ()))
    strays = [value for value in parked if value not in payday.poison.values()]
    assert not strays, f"{len(strays)} records lie in credits-dead that are no poison, such as {strays[0]!r:.80}"
    lab.require(payday.poison, f"no poison was published: {payday.load.missed} did not come")
    missing = [what for what, value in payday.poison.items() if value not in parked]
    assert not missing, f"{len(missing)} of {len(payday.poison)} records are not in credits-dead: {', '.join(missing)}"
    silent = [what for what, value in payday.poison.items() if not all(headers.get("reason") for headers in parked[value])]
    assert not silent, f"{len(silent)} dead letters have no header `reason`: {', '.join(silent)}"


def test_a_large_payment_is_sent_once(payday, lab):
    """While no worker dies or starts, the bank is asked once for a payment at which a person looks.

    Why: its worker is taken for dead while it waits, or takes the bank for dead.
    """
    calm = [c for c in payday.asked if payday.calm_end_ns is None or c["start_ns"] < payday.calm_end_ns]
    asked = [[c["replica"] for c in calm if c.get("reference") == name] for name in payday.slow_ids[:2]]
    lab.require(any(asked), f"no large payment was made: {payday.load.missed} did not come")
    lab.require_calm(payday.load)
    most = max(asked, key=len)
    assert len(most) == 1, f"the bank was asked {len(most)} times for one payment: by {', '.join(most)}"
    lab.require(payday.held_s >= SLOW_S, f"{payday.load.missed} did not come")


def test_a_large_payment_holds_up_no_other_partition(payday, lab):
    """While a person looks at a payment, the credits in the other partitions are paid.

    Why: the loop that waits for the bank has other partitions to read.
    """
    lab.require(payday.held_up is not None, f"no large payment was made: {payday.load.missed} did not come")
    seen = f"{payday.held_up} of {PARTITIONS - 1} credits in other partitions waited for {payday.held_s:.1f} s"
    if payday.held_up:
        lab.require_calm(payday.load)
    lab.at_most(payday.held_up, 0, seen, "credits that wait for a large payment")


def test_the_others_take_over(payday, lab):
    """Within 7 s of a worker's death the others pay what lies in its partitions, also while one of them has large payments at the bank.

    Why: the death is noticed too late, or the group waits for a worker that waits for the bank.
    """
    lab.require(payday.deaths, f"no worker died: {payday.load.missed} did not come")
    for death in payday.deaths:
        if death.took_s > TAKEN_WITHIN_S:
            lab.require_calm(payday.load)
        waited = f"{death.waiting} credits were still waiting" if death.waiting else "the last credit was paid only"
        seen = f"{waited} {death.took_s:.1f} s after {' and '.join(death.workers)} died"
        lab.at_most(death.took_s, TAKEN_WITHIN_S, seen, "s until all partitions are paid again")
    lab.require(len(payday.deaths) == 2, f"{payday.load.missed} did not come")


def test_what_is_done_is_committed(payday, lab):
    """What is done is committed within 3 s: whoever takes over begins there, and at the end each partition is committed up to the end of its log.

    Why: offsets are committed late, wrong or not at all, nobody begins at them, or a record blocks its partition.
    """
    lab.require(sum(payday.ends.values()) >= 100, f"only {sum(payday.ends.values())} records were published")
    behind = {p: (payday.committed[p], end) for p, end in payday.ends.items() if payday.committed[p] != end}
    assert not behind, f"partitions whose committed offset is not the log's end: {behind}"
    lab.require(payday.deaths, f"no worker died: {payday.load.missed} did not come")
    death_ns = payday.deaths[0].at_ns
    posts = Counter(r.context["credit"]["id"] for r in payday.load.history)
    old = {c["reference"] for c in payday.asked if c.get("paid") and posts[c["reference"]] == 1 and c["start_ns"] < death_ns - DONE_BEFORE_S * 1e9}
    lab.require(len(old) >= 30, f"only {len(old)} credits were paid more than {DONE_BEFORE_S:g} s before the first death")
    again = old & {c.get("reference") for c in payday.asked if c["start_ns"] > death_ns}
    seen = f"of {len(old)} credits that were paid more than {DONE_BEFORE_S:g} s before the first death {len(again)} were asked for again after it"
    lab.at_most(len(again) / len(old), AGAIN_AT_MOST, seen, "share that is asked for again")
