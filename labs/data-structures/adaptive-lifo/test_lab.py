"""Adaptive LIFO: bursts that a queue can absorb, and between them a rush that no queue can. The engine freezes in the rush, and in a quiet hour."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

import pytest

CALM, RUSH, EVENING, NIGHT, SMALL_HOURS = 36, 125, 24, 42, 14  # customers a second; the engine can do 50, so by night a stack digs out hardly anybody
BURSTS = {"burst": 28, "second burst": 30}
SECOND_S = 0.2  # for the second burst: about as fast as the rush, so that a moment's rate does not tell them apart
PATIENCE_MS = [1000, 1200]
SLOTS, WORK_S = 4, 0.08
RUSH_S = 4.5
NIGHT_S = 1.0  # as long as those can be helped who came in the burst before it
SMALL_HOURS_S = 2.1  # until the engine goes on; fewer come than in a burst, so whoever has room for one has room for all of them
FREEZES = {"rush": (30, 1.3), "small hours": (4, 1.6)}  # after so many answers, for so many seconds: longer than any customer waits
GRACE_NS, JUDGED_S = 2_000_000_000, 1.1
LATE_NS = 50_000_000  # how long a call may be on its way to the engine
SILENT_S = 0.5  # who has no answer so long after his time was over is left hanging
STALL_S = 0.5  # of the load: half of what a customer waits, and who is served at once needs a tenth of it
BURST_STALL_S = 0.25  # most of what is left to the last one of a burst who is served in his turn


@dataclass
class Day:
    """The run: its load, what the engine was asked, and when it stood still."""

    lab: object
    load: object
    standstills: dict = field(default_factory=dict)  # of the engine, by phase: from when to when, in ns

    def freeze(self, phase):
        """The engine stands still for a while."""
        answers, seconds = FREEZES[phase]
        self.load.until(lambda: has_ended(self.load, phase, answers), f"{answers} answers in the {phase}")
        engine = self.lab.peer("engine")
        engine.set(frozen=True)
        frozen_ns = self.lab.mark("the engine freezes")
        since_s = self.load.elapsed_s
        self.load.until(lambda: self.load.elapsed_s > since_s + seconds, "customers while the engine is frozen")
        self.standstills[phase] = frozen_ns, self.lab.mark("the engine goes on")  # noted before it begins the next fares
        engine.set(frozen=False)

    @cached_property
    def calls(self):
        """What the engine was asked; once the load is over."""
        return self.lab.peer("engine").calls()

    @cached_property
    def customers(self):
        return {r.context["id"]: r for r in self.load.history}

    @cached_property
    def fares(self):
        """What the engine made of each trip that it was asked for."""
        return {c["id"]: c["fare"] for c in self.calls if "fare" in c}

    def asked(self, phase):
        return self.load.history.where(phase=phase)

    def require_rush(self):
        """At least half of the customers of the rush came."""
        came = len(self.asked("rush"))
        self.lab.require(came >= RUSH * RUSH_S / 2, f"only {came} customers came in the rush")

    @cached_property
    def rush_ns(self):
        """When the first and the last customer of the rush came, by the timetable."""
        self.require_rush()
        times = [r.intended_ns for r in self.asked("rush")]
        return min(times), max(times)

    def is_served(self, record):
        """Whether a customer got the fare that the engine made, and in time."""
        is_in_time = record.latency_s <= record.context["timeout_ms"] / 1000
        return record.status == 200 and is_in_time and record.context["id"] in self.fares and not self.is_false(record)

    def is_false(self, record):
        """Whether the answer has another fare than the engine's, or none."""
        fare = record.body.get("fare") if isinstance(record.body, dict) else None
        return fare is None or fare != self.fares.get(record.context["id"])

    def late_ns(self, call):
        """How long after its customer's time was over a call began; below 0 before. A call for nobody is never late."""
        record = self.customers.get(call["id"])
        return call["start_ns"] - record.start_ns - record.context["timeout_ms"] * 1_000_000 if record else 0

    def stood_still(self, start_ns, end_ns):
        """Whether the engine did, in any part of this."""
        return any(start_ns < thawed_ns and frozen_ns < end_ns for frozen_ns, thawed_ns in self.standstills.values())

    def at_most(self, asked, value, limit, seen, what, stall_s=STALL_S):
        """`value <= limit`. A starved machine can only make it larger: a larger one counts if the machine was calm while `asked` were here."""
        try:
            self.lab.at_most(value, limit, seen, what)
        except AssertionError:
            self.lab.require_calm(self.load)
            stalled_s = self.load.history.between(asked.records[0].start_ns, max(r.end_ns for r in asked)).longest_stall_s
            self.lab.require(stalled_s < stall_s, f"the load stood still for {stalled_s:.2f} s")
            late_s = asked.latest_departure_s
            self.lab.require(late_s < stall_s, f"a customer came {late_s:.2f} s later than he should")
            raise


@pytest.fixture(scope="module")
def day(lab):
    """It is calm, with a burst; then comes a rush, with a freeze of the engine; then it is calm, with another burst; then quiet, with a freeze."""
    before_s, after_s, evening_s = (shortest_s + 0.4 * lab.random.random() for shortest_s in (1.2, 1.2, GRACE_NS / 1e9 + JUDGED_S))
    phases = [["calm", CALM, before_s], ["burst", BURSTS["burst"], 0], ["calm again", CALM, after_s], ["rush", RUSH, RUSH_S]]
    phases += [["evening", EVENING, evening_s], ["second burst", BURSTS["second burst"] / SECOND_S, SECOND_S]]
    phases += [["night", NIGHT, NIGHT_S], ["small hours", SMALL_HOURS, SMALL_HOURS_S]]
    plan = {"run": f"{lab.random.randrange(10**6)}", "patience_ms": PATIENCE_MS, "phases": phases, "is_one_day": True}
    with lab.load(users=1, at_most_s=40, plan=plan) as load:
        day = Day(lab, load)
        load.until(lambda: has_ended(load, "rush", 1), "an answer in the rush")
        lab.mark("a rush")
        day.freeze("rush")
        load.until(lambda: has_ended(load, "evening", 1), "an answer in the evening")
        lab.mark("the rush is over")
        day.freeze("small hours")
    return day


def has_ended(load, phase, count):
    """Whether so many requests of a phase have ended, in whatever way."""
    return sum(r.context["phase"] == phase for r in load.so_far()) >= count


def statuses(records):
    return Counter(f"status {r.status}" for r in records).most_common(3)


def test_the_contract_holds(day, lab):
    """When it is calm, at least 90% of the customers get their fare in time; whoever gets none is told 503, and nobody a false one.

    Why: a failure is dressed up as a success or as something else, or what could be done is not done.
    """
    odd = [r for r in day.load.history if r.status not in (200, 503, None)]
    assert not odd, f"{len(odd)} of {len(day.load.history)} answers were neither 200 nor 503: {statuses(odd)}"
    done = [r for r in day.load.history if r.status == 200 and r.failed is None]
    false = [r for r in done if day.is_false(r)]
    assert not false, f"{len(false)} of {len(done)} answers with 200 have not the engine's fare, such as {false[0].body!r}"
    asked = day.asked("calm")
    lab.require(len(asked) >= 30, f"only {len(asked)} customers came before the burst")
    lost = [r for r in asked if not day.is_served(r)]
    seen = f"{len(lost)} of {len(asked)} customers got no fare in time when all was calm: {statuses(lost)}"
    day.at_most(asked, len(lost) / len(asked), 0.1, seen, "calm customers without a fare")


def test_a_burst_is_absorbed(day, lab):
    """Of 28 customers who come at once, or 30 within 0.2 s, when it is calm, before a rush or after it, at least 85% get their fare in time.

    Why: the line has no room for them, takes a burst for an overload, or lets those who came first wait until the last.
    """
    for phase, count in BURSTS.items():
        asked = day.asked(phase)
        lab.require(len(asked) == count, f"only {len(asked)} customers came in the {phase}")
        lost = [r for r in asked if not day.is_served(r)]
        seen = f"{len(lost)} of the {len(asked)} customers of the {phase} got no fare in time: {statuses(lost)}"
        day.at_most(asked, len(lost) / len(asked), 0.15, seen, f"customers of the {phase} without a fare", BURST_STALL_S)


def test_the_engine_works_for_nobody_who_has_left(day, lab):
    """At most 5% of the fares that the engine begins, in a rush, after it, and after a standstill in a quiet hour, are for those whose time is over.

    Why: whoever has left keeps his place in the line, so the engine works at full speed, and for nobody.
    """
    start_ns, end_ns = day.rush_ns
    rush, after = [c for c in day.calls if start_ns < c["start_ns"] <= end_ns], [c for c in day.calls if c["start_ns"] > end_ns]
    lab.require(len(rush) + len(after) >= 50, f"the engine was asked for only {len(rush) + len(after)} fares in the rush and after it")
    begun = {"in the rush": rush, "after the rush": after}
    if "small hours" in day.standstills:
        _, thawed_ns = day.standstills["small hours"]
        begun["after its second standstill"] = [c for c in after if c["start_ns"] > thawed_ns]
    dead = {when: sum(day.late_ns(c) > LATE_NS for c in calls) for when, calls in begun.items()}
    when = max(begun, key=lambda w: dead[w] / max(len(begun[w]), 20))
    seen = f"{dead[when]} of {len(begun[when])} fares that the engine began {when} were for customers who had left"
    asked = day.load.history.between(start_ns, None)
    day.at_most(asked, dead[when] / max(len(begun[when]), 20), 0.05, seen, "fares for who has left")
    lab.require("small hours" in day.standstills, f"the run ended too early: {day.load.missed} did not come")


def test_the_engine_is_put_to_use(day, lab):
    """In a rush at least 65% of the fares that the engine could work out reach a customer in time.

    Why: it is given too much at a time, and slows down, or too little; or what it works out comes too late.
    """
    start_ns, end_ns = day.rush_ns
    frozen_ns, thawed_ns = day.standstills.get("rush", (0, 0))
    lab.require(start_ns < frozen_ns < thawed_ns < end_ns, "the engine did not freeze and go on within the rush")
    alone = [c for c in day.calls if c["end_ns"] and c["in_hand"] <= SLOTS and not day.stood_still(c["start_ns"], c["end_ns"])]
    work_s = median((c["end_ns"] - c["start_ns"]) / 1e9 for c in alone) if len(alone) >= 20 else WORK_S
    could = SLOTS / work_s * (end_ns - start_ns - (thawed_ns - frozen_ns)) / 1e9
    served = [r for r in day.load.history if start_ns <= r.end_ns <= end_ns and day.is_served(r) and not day.stood_still(r.end_ns, r.end_ns)]
    seen = f"{len(served)} customers got their fare in time in the rush, and the engine could have worked out {could:.0f}"
    day.at_most(day.asked("rush"), max(1 - len(served) / could, 0), 0.35, seen, "part of the engine's work that was lost")


def test_who_is_served_is_served_young(day, lab):
    """Half of those who come in a rush and get their fare in time have waited in line for at most 0.3 of their time.

    Why: all wait for as long as they can, and then some of them are served; the same number could have been served at once.
    """
    begun_ns = {c["id"]: c["start_ns"] for c in reversed(day.calls)}  # a trip's first call
    served = [r for r in day.asked("rush") if day.is_served(r)]
    lab.require(len(served) >= 20, f"only {len(served)} customers of the rush got their fare in time")
    ages = [(begun_ns[r.context["id"]] - r.start_ns) / (r.context["timeout_ms"] * 1e6) for r in served]
    seen = f"half of the {len(served)} who got their fare in the rush had waited in line for {median(ages):.2f} of their time or more"
    day.at_most(day.asked("rush"), median(ages), 0.3, seen, "part of one's time in line, as a median")


def test_nobody_is_left_hanging(day, lab):
    """Whoever comes has an answer, a fare or 503, half a second after his time is over at the latest: at least 9 of 10, in a rush and at other times.

    Why: a place in the line is given up when its turn comes, and not when its customer's time is over.
    """
    day.require_rush()
    lab.require(day.standstills, f"the run ended too early: {day.load.missed} did not come")
    for when, asked in {"in the rush": day.asked("rush"), "at other times": day.load.history.where(lambda r: r.context["phase"] != "rush")}.items():
        hanging = [r for r in asked if r.status is None or r.latency_s > r.context["timeout_ms"] / 1000 + SILENT_S]
        seen = f"{len(hanging)} of {len(asked)} customers who came {when} had no answer {SILENT_S:g} s after their time was over"
        day.at_most(asked, len(hanging) / len(asked), 0.1, seen, f"customers left hanging {when}")


def test_it_is_over_when_it_is_over(day, lab):
    """From 2 s after a rush, at least 90% of the customers get their fare in time again.

    Why: the line is still full of the rush, or what protects the engine does not find out that it is over.
    """
    _, end_ns = day.rush_ns
    asked = day.asked("evening").where(lambda r: r.intended_ns > end_ns + GRACE_NS)
    lab.require(len(asked) >= 20, f"only {len(asked)} customers came after the rush")
    lost = [r for r in asked if not day.is_served(r)]
    seen = f"{len(lost)} of {len(asked)} customers got no fare in time, 2 s and more after the rush: {statuses(lost)}"
    day.at_most(asked, len(lost) / len(asked), 0.1, seen, "customers without a fare after the rush")
