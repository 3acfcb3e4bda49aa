"""Fencing token: twelve clerks, three workers, one lock an invoice; two of its holders stand still for longer than their lease, and one dies."""

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations

import pytest

from runner.checkers.intervals import Section, find_overlaps

USERS = 12
INVOICES = 5
CALM_WRITES = 40
CALM_WITHIN_S = 10
TAKEN_WITHIN_S = 5.0
AHEAD_S = 4.0  # how far the clock of one worker is ahead
HELD_S = 1.4  # how long the kit keeps the page of the one who took over, at the renderer
SLOWEST_PAGE_NS = 1_500_000_000
SETTLED_NS = 1_000_000_000  # so long after a stop is over, answers to what waited for it may still be 503


@dataclass
class Stop:
    """A worker stands still or dies while it has the lock of an invoice."""

    worker: str
    key: str
    start_ns: int
    end_ns: int = 0  # when it goes on; never for a dead one
    taken_ns: int = 0  # when another worker had this invoice rendered
    overtaken: bool = False  # whether the other one was so far that going on is dangerous

    def covers(self, call, had, written_ns):
        """Whether a page begun since has a line that the worker `had` to add when it stopped: it could not know that it had lost its locks."""
        if call["replica"] != self.worker or call["start_ns"] < self.start_ns:
            return False
        if not self.end_ns or call["start_ns"] < self.end_ns:
            return True
        return any(line in had and written_ns.get((call["key"], line), call["start_ns"]) >= call["start_ns"] for line in call["lines"])


class Desk:
    """The run: its load, what the store and the renderer saw, and the three stops."""

    def __init__(self, lab, load):
        self.lab, self.load = lab, load
        self.storage, self.renderer = lab.peer("storage"), lab.peer("renderer")
        self.calm_end_ns = 0
        self.stops = []
        self.held_s = 0.0
        self.morning = None  # the status of the answer after a quiet night

    def writes(self, key):
        return [c for c in self.storage.calls() if c["method"] == "PUT" and c["end_ns"] and c.get("key") == key]

    def accepted(self):
        """The writes that the store took, in the order in which it did."""
        return sorted((c for c in self.storage.calls() if c.get("applied")), key=lambda c: c["applied"])

    def written_ns(self):
        """When each line of each invoice was first written."""
        return {(c["key"], line): c["end_ns"] for c in reversed(self.accepted()) for line in c["added"]}

    def had(self, stop):
        """The lines that a worker may have had to add when it stood still: of its own requests, and of those that waited for anybody."""
        asked = self.load.history
        return {r.context["line"] for r in asked if r.start_ns < stop.start_ns or (r.start_ns < stop.end_ns and r.replica == self.number_of(stop))}

    def well_until_ns(self, call):
        """When a page had its end, or the worker that wanted it was stopped meanwhile."""
        return min([call["end_ns"], *(s.start_ns for s in self.stops if s.worker == call["replica"] and s.start_ns > call["start_ns"])])

    def pages(self, key, since_ns, other_than=""):
        return [c for c in self.renderer.calls() if c.get("key") == key and c["start_ns"] > since_ns and c["replica"] != other_than]

    @contextmanager
    def caught(self, peer, key, other_than=""):
        """The next call for an invoice that this peer gets is kept there to the end of the block; gives a way to ask for it."""
        before = {c["n"] for c in peer.calls() if c.get("caught")}
        peer.set(catch={"key": key, "except": other_than})
        try:
            yield lambda: next((c for c in peer.calls() if c.get("caught") and c["n"] not in before), None)
        finally:
            peer.set(catch=None)  # first: what is caught until then is seen below
            peer.set(released=[c["n"] for c in peer.calls() if c.get("caught")])

    @contextmanager
    def standing_still(self, call):
        """The worker of a call stands still, as in a long pause of a garbage collector; the balancer sends it nothing new."""
        stop = Stop(call["replica"], call["key"], time.monotonic_ns())
        self.stops.append(stop)
        self.load.mark_down(self.number_of(stop))
        self.lab.pause(stop.worker)
        try:
            yield stop
        finally:
            self.go_on(stop)

    def go_on(self, stop):
        """It goes on, unless it does already."""
        if not stop.end_ns:
            stop.end_ns = time.monotonic_ns()
            self.lab.resume(stop.worker)
            self.load.mark_up(self.number_of(stop))

    def number_of(self, stop):
        return self.lab.replicas.index(stop.worker) + 1

    def await_taker(self, stop):
        """Wait until another worker has the invoice rendered."""
        taken = self.load.until(
            lambda: self.pages(stop.key, stop.start_ns, stop.worker), "another worker's turn at the invoice", at_most_s=2.05 * TAKEN_WITHIN_S
        )
        stop.taken_ns = taken[0]["start_ns"]


@pytest.fixture(scope="module")
def desk(lab):
    """After 40 writes a holder stands still and its write is late; then one stands still before its write; then one dies, and its write is late."""
    keys = [str(n) for n in lab.random.sample(range(1000, 10_000), INVOICES)]
    lab.skew(lab.random.choice(lab.replicas), AHEAD_S)
    with lab.load(users=USERS, endless=True, plan={"run": f"run-{lab.random.randrange(10**6)}", "invoices": keys}) as load:
        desk = Desk(lab, load)
        load.until(lambda: len(desk.accepted()) >= CALM_WRITES, f"{CALM_WRITES} writes", at_most_s=CALM_WITHIN_S)
        desk.calm_end_ns = time.monotonic_ns()
        late, slow, dead = lab.random.sample(keys, 3)
        delay_a_write(desk, late)
        stop_a_holder(desk, slow)
        kill_a_holder(desk, dead)
    if not load.missed:
        pass_a_night(desk)
    return desk


def delay_a_write(desk, key):
    """A write is on its way and its sender stands still, until another worker has written the invoice; then the late write arrives."""
    with desk.caught(desk.storage, key) as caught:
        call = desk.load.until(caught, "a write of an invoice", at_most_s=5)
        desk.lab.mark(f"a write of invoice {key} by {call['replica']} is late")
        with desk.standing_still(call) as stop:
            desk.await_taker(stop)
            desk.load.until(lambda: is_overtaken(desk, stop), "another worker's write", at_most_s=4)
            stop.overtaken = True
            let_it_arrive(desk, call)
    desk.lab.until(lambda: has_caught_up(desk, stop), at_most_s=3)  # who still has lines from before is excused, and would be so in what follows


def has_caught_up(desk, stop):
    """Whether the line that each clerk had brought before the worker went on is written."""
    return len({r.user for r in desk.load.so_far() if r.status == 200 and r.end_ns > stop.end_ns}) == USERS


def is_overtaken(desk, stop):
    return any(c.get("applied") and c["start_ns"] > stop.start_ns and c["replica"] != stop.worker for c in desk.writes(stop.key))


def stop_a_holder(desk, key):
    """A holder stands still while its page is rendered, and goes on when the next holder has read the invoice and waits for its page."""
    with desk.caught(desk.renderer, key) as caught:
        call = desk.load.until(caught, "a page of an invoice", at_most_s=5)
        with desk.standing_still(call) as stop, desk.caught(desk.renderer, key, other_than=stop.worker) as next_caught:
            desk.renderer.set(released=[call["n"]])  # its page waits for it
            desk.await_taker(stop)
            taker = desk.load.until(next_caught, "the next holder's page", at_most_s=2)
            stop.overtaken = True
            desk.go_on(stop)
            desk.lab.until(lambda: [c for c in desk.writes(key) if c["replica"] == stop.worker and c["start_ns"] > stop.end_ns], at_most_s=0.5)
            desk.lab.until(lambda: desk.pages(key, taker["start_ns"], stop.worker) or seconds_since(taker) > HELD_S, at_most_s=HELD_S)
        desk.held_s = seconds_since(taker)


def seconds_since(call):
    return (time.monotonic_ns() - call["start_ns"]) / 1e9


def kill_a_holder(desk, key):
    """A holder dies while its write is on its way; it arrives when the next holder has read the invoice and waits for its page."""
    with desk.caught(desk.storage, key) as caught:
        call = desk.load.until(caught, "a write of an invoice", at_most_s=5)
        stop = Stop(call["replica"], key, time.monotonic_ns())
        desk.stops.append(stop)
        desk.lab.kill(stop.worker)
        with desk.caught(desk.renderer, key, other_than=stop.worker) as next_caught:
            desk.await_taker(stop)
            desk.load.until(next_caught, "the next holder's page", at_most_s=2)
            stop.overtaken = True
            let_it_arrive(desk, call)


def let_it_arrive(desk, call):
    """A write that the kit has kept reaches the store."""
    desk.storage.set(released=[call["n"]])
    desk.lab.mark("the late write arrives")
    desk.lab.until(lambda: any(c["n"] == call["n"] for c in desk.writes(call["key"])), at_most_s=2)


def pass_a_night(desk):
    """Nobody asks for anything, so all that expires in Redis and is no lease has expired; then the invoice with the most writes gets a line."""
    with desk.lab.redis() as client:
        for name in client.scan_iter():
            if client.pttl(name) > TAKEN_WITHIN_S * 1000:
                client.delete(name)
    desk.lab.mark("a night has passed")
    key = Counter(write["key"] for write in desk.accepted()).most_common(1)[0][0]
    dead = desk.number_of(desk.stops[-1])
    living = [n for n in range(1, len(desk.lab.replicas) + 1) if n != dead]
    desk.morning = desk.lab.call("POST", f"/invoices/{key}/lines", {"line": "morning"}, replica=desk.lab.random.choice(living)).status


def test_the_contract_holds(desk, lab):
    """While all workers are well, 95% of the answers are 200, and 40 writes take 10 s at most; a quiet night does no harm; a new line comes last.

    Why: a worker gives up where it could wait for its turn, keeps the lock when its turn is over, or is refused by the storage again and again.
    """
    mixed = [w for w in desk.accepted() if not w["in_order"] and not w["removed"]]
    assert not mixed, f"{len(mixed)} writes changed the order of the lines, such as one by {mixed[0]['replica']} of invoice {mixed[0]['key']}"
    lab.require_calm(desk.load)
    answers = Counter(f"status {r.status}" for r in desk.load.history).most_common(3)
    slow = f"only {len(desk.accepted())} writes in {CALM_WITHIN_S} s of calm, and a turn takes 0.1 s; the answers: {answers}"
    assert desk.calm_end_ns, slow
    troubled = [(s.start_ns, max(s.end_ns, s.taken_ns or desk.load.end_ns) + SETTLED_NS) for s in desk.stops]
    asked = [r for r in desk.load.history if all(r.end_ns < start_ns or r.start_ns > end_ns for start_ns, end_ns in troubled)]
    answered = sum(r.status is not None for r in asked)
    assert answered >= CALM_WRITES / 2, f"only {answered} requests were answered while all was well"
    wrong = [r for r in asked if r.status != 200]
    kinds = Counter(f"status {r.status}" for r in wrong).most_common(3)
    lab.at_most(len(wrong) / len(asked), 0.05, f"{len(wrong)} of {len(asked)} answers were not 200: {kinds}", "other answers")
    lab.require(desk.morning, f"nobody asked for anything after the night: {desk.load.missed} did not come")
    assert desk.morning == 200, f"after a night in which nobody asked for anything, a new line was answered with {desk.morning}"


def test_no_line_is_lost(desk, lab):
    """A line that was answered with 200 is on its invoice, once and for good: no write takes a line away.

    Why: a worker writes what it made of an older invoice, after its lock has gone to another.
    """
    lines = {}
    for write in desk.accepted():
        on = lines.setdefault(write["key"], set())
        on.update(write["added"])
        gone, again = write["removed"], write["twice"]
        seen = f"invoice {write['key']}: a write by {write['replica']} (token {write['token']})"
        assert not gone, f"{seen} took away {len(gone)} of {len(on)} lines, such as {gone[0]}"
        assert not again, f"{seen} has {again[0]} twice"
    done = [r for r in desk.load.history if r.status == 200]
    lost = [r.context for r in done if r.context["line"] not in lines.get(r.context["invoice"], ())]
    assert not lost, f"{len(lost)} of {len(done)} lines were answered with 200 and never written, such as {lost[0]['line']} of {lost[0]['invoice']}"
    written_ns = desk.written_ns()
    early = [r.context for r in done if written_ns[r.context["invoice"], r.context["line"]] > r.end_ns]
    assert not early, f"{len(early)} of {len(done)} lines were answered with 200 before the storage had them, such as {early[0]['line']}"
    overtaken = sum(stop.overtaken for stop in desk.stops)
    lab.require(overtaken == 3, f"{overtaken} of 3 holders that stood still or died were overtaken: {desk.load.missed} did not come")


def test_one_worker_at_a_time_renders_an_invoice(desk, lab):
    """No two pages of one invoice are being rendered at once, but for those of a worker that stood still.

    Why: a lock is given up that belongs to another by now, or expires while its holder is well and at work, or is none.
    """
    calls = [c for c in desk.renderer.calls() if c["status"] == 200]
    written_ns = desk.written_ns()
    for stop in desk.stops:
        had = desk.had(stop)
        calls = [c for c in calls if not stop.covers(c, had, written_ns)]
    sections = [Section(c["key"], c["start_ns"], min(c["start_ns"] + SLOWEST_PAGE_NS, desk.well_until_ns(c)), c["replica"]) for c in calls]
    lab.require(len(sections) >= CALM_WRITES / 2, f"only {len(sections)} pages were rendered by workers that were well")
    lab.require_calm(desk.load)  # leases run out while a machine stands still
    overlaps = find_overlaps(sections)
    assert not overlaps, f"invoice {overlaps[0]} ({len(overlaps)} of {INVOICES} invoices)"
    lab.require(desk.held_s, f"no page took long: {desk.load.missed} did not come")


def test_a_worker_that_stops_does_not_keep_its_invoice(desk, lab):
    """When a worker stands still or dies with the lock of an invoice, another has the invoice rendered within 5 s.

    Why: the lock outlives the holder that would have to give it back, or those who wait do not notice that it is free.
    """
    lab.require_calm(desk.load)
    for stop in desk.stops:
        waited_s = ((stop.taken_ns or desk.load.end_ns) - stop.start_ns) / 1e9
        seen = f"invoice {stop.key}: nobody else had its turn for {waited_s:.1f} s after {stop.worker} stopped"
        lab.at_most(waited_s, TAKEN_WITHIN_S, seen, "s until another worker has its turn", is_time=True)
    lab.require(len(desk.stops) == 3, f"{len(desk.stops)} of 3 holders were stopped: {desk.load.missed} did not come")


def test_invoices_do_not_wait_for_each_other(desk, lab):
    """Any two invoices are rendered at the same time now and then: at least 9 of the 10 pairs that 5 invoices make.

    Why: one lock stands for more than one invoice.
    """
    calls = [c for c in desk.renderer.calls() if c["status"] == 200]
    lab.require(len(calls) >= CALM_WRITES / 2, f"only {len(calls)} pages were rendered")
    lab.require_calm(desk.load)
    pairs = {frozenset((a["key"], b["key"])) for a, b in combinations(calls, 2) if a["start_ns"] < b["end_ns"] and b["start_ns"] < a["end_ns"]}
    met = sum(len(pair) == 2 for pair in pairs)
    lab.at_least(met, 9, f"only {met} of the 10 pairs of invoices were ever being rendered at the same time", "pairs rendered at once")
