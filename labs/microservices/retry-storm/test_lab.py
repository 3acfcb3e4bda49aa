"""Retry storm: a payment provider that has blips, is slow for some, and then is out; two hops before it, and customers who do not wait for ever."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import pytest

RATE = 60
HASTY_MS, PATIENT_MS = (600, 1000), (6000, 8000)
WARM_CALLS = 60
BLIPS, BLIPS_AGAIN = 10, 8
SLOW_QUOTES, PART_QUOTES, SLOW_CHARGES = 15, 15, 10
SLOW_S = 1.5  # how long a slow call takes
PART_S = 0.6  # and a quote before a slow charge: by more than LATE_NS that charge outlives a customer if it gets all of his time anew
OUT_S = 2.5
GRACE_S = 2.0
JUDGED_S = 1.0
LATE_NS = 400_000_000  # how long the news may take that a customer has given up
SILENT_S = 2.0  # who has no answer so long after his time was over gets none
STALL_S = 0.2  # half of LATE_NS, and a third of the shortest patience


@dataclass
class Day:
    """The run: its load, what the provider saw, and when each phase began."""

    lab: object
    load: object
    run: str  # every customer's id ends with it
    starts_ns: dict = field(default_factory=dict)

    def begin(self, phase, mode=""):
        """The provider is like this from now on."""
        self.lab.peer("payments").set(mode=mode or phase, run=self.run)
        self.starts_ns[phase] = self.lab.mark(f"the provider: {phase}")

    def times_of(self, phase):
        """When a phase began and ended."""
        later = [start_ns for start_ns in self.starts_ns.values() if start_ns > self.starts_ns[phase]]
        return self.starts_ns[phase], min(later, default=self.load.end_ns)

    def asked(self, phase):
        """What customers asked in a phase, however it ended."""
        start_ns, end_ns = self.times_of(phase)
        return self.load.history.where(lambda r: start_ns <= r.start_ns < end_ns)

    def calls(self, mode=""):
        """What the provider was asked, in one mode or ever."""
        return [c for c in self.lab.peer("payments").calls() if "mode" in c and mode in ("", c["mode"])]

    def is_customers(self, call):
        """Whether a call was made for a customer: an app may ask on its own account, too."""
        return call["id"].endswith(f"-{self.run}")

    def blips(self, phase):
        """The calls that a blip met in a phase."""
        return [c for c in self.calls(phase) if c.get("blip")]

    @cached_property
    def customers(self):
        """What each customer asked, by its id; once the load is over."""
        return {r.context["id"]: r for r in self.load.history}

    def blipped(self, phase):
        """The customers whom a blip met in a phase, by id; once the load is over."""
        return {c["id"]: self.customers[c["id"]] for c in self.blips(phase) if c["id"] in self.customers}

    def gone_ns(self, record):
        """When this customer's time was over."""
        return record.start_ns + record.context["timeout_ms"] * 1_000_000

    def late_ns(self, call, end_ns):
        """How long after its customer gave up this was; below 0 before. A call for nobody is never late."""
        record = self.customers.get(call["id"])
        return end_ns - self.gone_ns(record) if record else 0

    def slow(self, *habits, seconds=SLOW_S):
        """The first call of so many seconds for each of such customers."""
        slow = [c for c in self.calls("slow") if c.get("slow_s") == seconds and c["id"] in self.customers]
        return list({c["id"]: c for c in reversed(slow) if self.customers[c["id"]].context["habit"] in habits}.values())

    def wait(self, seconds, what):
        until_s = self.load.elapsed_s + seconds
        self.load.until(lambda: self.load.elapsed_s > until_s, what)

    def require(self, phase):
        """The run got as far as the end of this phase."""
        reached = phase in self.starts_ns and (self.times_of(phase)[1] < self.load.end_ns or not self.load.missed)
        self.lab.require(reached, f"the run ended too early: {self.load.missed} did not come")

    def at_most(self, phase, value, limit, seen, what):
        """`value <= limit`. A starved machine can only make it larger: a larger one counts if the machine was calm."""
        if value > limit:
            self.lab.require_calm(self.load)
            stall_s = self.load.history.between(*self.times_of(phase)).longest_stall_s
            self.lab.require(stall_s < STALL_S, f"the load stood still for {stall_s:.2f} s")
        self.lab.at_most(value, limit, seen, what)


@pytest.fixture(scope="module")
def day(lab):
    """The provider is well, then it has blips, then it is slow for some, then it is out, then well again, then it has blips again."""
    plan = {"run": f"{lab.random.randrange(10**6)}", "rate": RATE, "hasty_ms": HASTY_MS, "patient_ms": PATIENT_MS}
    with lab.load(users=1, endless=True, plan=plan) as load:
        day = Day(lab, load, plan["run"])
        day.begin("well")
        load.until(lambda: sum(day.is_customers(c) for c in day.calls()) >= WARM_CALLS, f"{WARM_CALLS} calls", at_most_s=8)
        day.begin("blips")
        load.until(lambda: len(day.blips("blips")) >= BLIPS, f"{BLIPS} blips", at_most_s=10)
        day.begin("slow")
        enough = f"{SLOW_QUOTES} slow quotes, {SLOW_CHARGES} slow charges and {PART_QUOTES} quotes of {PART_S:g} s, all of orders"
        load.until(lambda: has_been_slow(day), enough, at_most_s=8)
        day.begin("out")
        day.wait(OUT_S, "customers during the outage")
        day.begin("well again", mode="well")
        day.wait(GRACE_S + JUDGED_S, "customers after the outage")
        day.begin("blips again")
        load.until(lambda: len(day.blips("blips again")) >= BLIPS_AGAIN, f"{BLIPS_AGAIN} blips after the outage", at_most_s=6)
    return day


def has_been_slow(day):
    calls = [c for c in day.calls("slow") if c.get("slow_s") and is_order(c["id"])]
    steps = Counter(step for step, _ in {(c["method"], c["id"]) for c in calls if c["slow_s"] == SLOW_S})
    parts = {c["id"] for c in calls if c["slow_s"] == PART_S and c["end_ns"]}  # ended, so that the charge has begun before the outage
    return steps["quote"] >= SLOW_QUOTES and steps["charge"] >= SLOW_CHARGES and len(parts) >= PART_QUOTES


def is_order(key):
    return key.startswith("o")


def is_silent(record):
    """Whether a customer got no answer, and the load's end does not explain it."""
    return record.status is None and record.latency_s > record.context["timeout_ms"] / 1000 + SILENT_S


def statuses(records):
    return Counter(f"status {r.status}" for r in records).most_common(3)


def test_the_contract_holds(day, lab):
    """While the provider is well (blips apart), 90% of the answers are 200 with its price; in trouble 503 or 504. No charge precedes its quote.

    Why: a failure is answered as something else or not at all, what could be done is not done, or it is done in the wrong order.
    """
    odd = [r for r in day.load.history if r.status not in (200, 503, 504, None)]
    assert not odd, f"{len(odd)} of {len(day.load.history)} answers were neither 200, 503 nor 504: {statuses(odd)}"
    done = [r for r in day.load.history if r.status == 200]
    prices = {c["id"]: c["price"] for c in day.calls() if "price" in c}
    false = [r for r in done if r.context["id"] not in prices or r.body != {"id": r.context["id"], "price": prices[r.context["id"]]}]
    assert not false, f"{len(false)} of {len(done)} answers have no price, or not the provider's, such as {false[0].body}"
    quotes = [c for c in day.calls() if c["method"] == "quote" and c["status"] == "OK"]
    quoted_ns = {c["id"]: c["end_ns"] for c in sorted(quotes, key=lambda c: -c["end_ns"])}  # of several the one that ended first
    early = [c["id"] for c in day.calls() if c["method"] == "charge" and quoted_ns.get(c["id"], day.load.end_ns) > c["start_ns"]]
    assert not early, f"{len(early)} charges were begun before the provider had told the price, such as that of {early[0]}"
    charged = {c["id"] for c in day.calls() if c.get("charged")}
    free = [r.context["id"] for r in done if is_order(r.context["id"]) and r.context["id"] not in charged]
    assert not free, f"{len(free)} orders were answered with 200 and never charged, such as {free[0]}"
    phases = [phase for phase in ("well", "blips") if phase in day.starts_ns]  # with an app that refuses all it stays at the first
    blipped = day.blipped("blips")
    asked = [r for phase in phases for r in day.asked(phase) if r.context["id"] not in blipped]
    lab.require(len(asked) >= 50, f"only {len(asked)} customers came before the provider was slow")
    failed = [r for r in asked if r.status != 200]
    seen = f"{len(failed)} of {len(asked)} answers were not 200: {statuses(failed)}"
    day.at_most(phases[-1], len(failed) / len(asked), 0.1, seen, "other answers")
    silent = [r for r in day.load.history if is_silent(r)]
    if silent:
        lab.require_calm(day.load)
    assert not silent, f"{len(silent)} of {len(day.load.history)} customers got no answer at all"


def test_blips_are_hidden(day, lab):
    """A customer whose quote the provider refuses in a blip gets the 200 all the same: at least 3 of 4, and 3 of 4 after an outage, too.

    Why: nobody tries again where trying again helps, or what pays for it was spent in the outage and does not come back.
    """
    for phase, least, when in (("blips", BLIPS, ""), ("blips again", BLIPS_AGAIN, " after the outage")):
        blipped = day.blipped(phase)
        lab.require(len(blipped) >= least, f"the provider had {len(blipped)} of {least} blips{when}")
        shown = [r for r in blipped.values() if r.status != 200]
        seen = f"{len(shown)} of {len(blipped)} blips{when} reached a customer: {statuses(shown)}"
        day.at_most(phase, len(shown) / len(blipped), 0.25, seen, f"blips that reached a customer{when}")


def test_an_outage_is_not_amplified(day, lab):
    """During an outage the provider gets at most 130 calls for 100 customers.

    Why: each hop tries again, and their tries multiply; or one hop tries again and again although nothing gets better.
    """
    day.require("out")
    asked = {r.context["id"] for r in day.asked("out")}
    lab.require(len(asked) >= 75, f"only {len(asked)} customers came during the outage")
    calls = Counter(c["id"] for c in day.calls("out") if c["id"] in asked or c["id"] not in day.customers)
    worst = max(calls.values(), default=0)
    seen = f"{calls.total()} calls for {len(asked)} customers, up to {worst} for one"
    lab.at_most(max(calls.total() / len(asked) - 1, 0), 0.3, seen, "calls too many for each customer")


def test_the_shop_recovers(day, lab):
    """From 2 s after the end of an outage, at least 90% of the answers are 200.

    Why: what protects the provider does not find out that it is well again.
    """
    day.require("well again")
    start_ns = day.starts_ns["well again"] + int(GRACE_S * 1e9)
    end_ns = day.load.end_ns - 1_000_000_000  # whose time was not over by then may have been cut off by the load's end
    asked = [r for r in day.asked("well again") if r.start_ns > start_ns and (r.status or day.gone_ns(r) < end_ns)]
    lab.require(len(asked) >= 30, f"only {len(asked)} customers came after the outage")
    failed = [r for r in asked if r.status != 200]
    seen = f"{len(failed)} of {len(asked)} answers were not 200: {statuses(failed)}"
    day.at_most("well again", len(failed) / len(asked), 0.1, seen, "other answers after the outage")


def test_nothing_begins_for_a_customer_who_is_gone(day, lab):
    """Once a customer's time is over, nothing is begun for him any more: where a slow quote ate it up, for at most 1 order of 5.

    Why: the next call is made, or the last one tried again, without a look at the time that is left.
    """
    day.require("slow")
    late = Counter(c["method"] for c in day.calls() if day.late_ns(c, c["start_ns"]) > LATE_NS)
    tempted = [c for c in day.slow("hasty") if c["method"] == "quote" and is_order(c["id"])]
    lab.require(len(tempted) >= 4, f"only {len(tempted)} orders of hasty customers had a slow quote")
    seen = f"{late['charge']} charges and {late['quote']} quotes were begun for customers who were gone; {len(tempted)} orders had a quote too late"
    day.at_most("slow", late.total() / len(tempted), 0.2, seen, "calls for customers who were gone")


def test_work_ends_when_its_customer_gives_up(day, lab):
    """A slow call ends within 0.4 s when its customer gives up: at least 3 of 4, and 3 of 4 of those after a quote that took part of his time.

    Why: somebody stops waiting for an answer, and the work for it goes on; or a call gets the whole time, and not what is left of it.
    """
    day.require("slow")
    out_ns = day.times_of("slow")[1]
    tight = {c["id"] for c in day.slow("hasty", seconds=PART_S) if (c["end_ns"] or out_ns) < out_ns}
    lab.require(len(tight) >= 4, f"only {len(tight)} orders of hasty customers had a quote that took {PART_S:g} s")
    others = {c["id"] for c in day.slow("hasty")} - tight
    lab.require(len(others) >= 10, f"only {len(others)} calls of hasty customers were slow")
    on = {c["id"] for c in day.slow("hasty") if day.late_ns(c, c["end_ns"] or day.load.end_ns) > LATE_NS}
    seen = f"{len(on & others)} of {len(others)} slow calls went on when their customers were gone"
    day.at_most("slow", len(on & others) / len(others), 0.25, seen, "calls that went on")
    seen = f"{len(on & tight)} of {len(tight)} charges after a quote of {PART_S:g} s went on when their customers were gone"
    day.at_most("slow", len(on & tight) / len(tight), 0.25, seen, "charges that went on after a longer quote")


def test_who_has_time_is_served(day, lab):
    """A customer who can wait for a slow answer gets it: at least 3 of 4.

    Why: all are given the same short time, however much of it they have, or all are turned away because some are slow.
    """
    lab.require("slow" in day.starts_ns, f"the run ended too early: {day.load.missed} did not come")
    refused = {c["id"] for c in day.calls("out")}
    slow = [c for c in day.calls("slow") if c.get("slow_s")]
    met = refused | {c["id"] for c in slow}
    patient = [r for r in day.asked("slow") if r.context["habit"] == "patient" and r.context["id"] not in met]
    lab.require(len(patient) >= 10, f"only {len(patient)} patient customers met no slow call")
    away = [r for r in patient if r.status != 200]
    seen = f"{len(away)} of {len(patient)} customers with {PATIENT_MS[0] / 1000:g} s or more were turned away beside the slow calls: {statuses(away)}"
    day.at_most("slow", len(away) / len(patient), 0.25, seen, "patient customers turned away")
    day.require("out")
    # An order whose quote was slow can meet the outage when it is to be charged, whether or not its app still asks.
    out_ns = day.times_of("slow")[1]
    caught = refused | {c["id"] for c in slow if is_order(c["id"]) and c["method"] == "quote" and (c["end_ns"] or day.load.end_ns) > out_ns}
    customers = [day.customers[c["id"]] for c in day.slow("patient") if c["status"] != "OK" or c["id"] not in caught]
    lab.require(len(customers) >= 4, f"only {len(customers)} calls of patient customers were slow")
    unserved = [r for r in customers if r.status != 200]
    times = f"{PATIENT_MS[0] / 1000:g} s or more did not get what took {SLOW_S:g}"
    seen = f"{len(unserved)} of {len(customers)} customers with {times}: {statuses(unserved)}"
    day.at_most("slow", len(unserved) / len(customers), 0.25, seen, "patient customers unserved")


def test_no_order_is_charged_twice(day, lab):
    """The provider charges an order once at most.

    Why: a charge that was not answered in time is tried again, and it had been made.
    """
    charges = Counter(c["id"] for c in day.calls() if c.get("charged"))
    twice = [key for key, count in charges.items() if count > 1]
    assert not twice, f"{len(twice)} of {len(charges)} orders were charged twice or more, such as {twice[0]}: {charges[twice[0]]} times"
    slow = [c for c in day.slow("hasty", "patient") if c["method"] == "charge"]
    lab.require(len(slow) >= 5, f"only {len(slow)} charges were slow")
