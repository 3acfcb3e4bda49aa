"""Kafka ordering: twenty shops, two ingest replicas, two workers; a broker that stands still, a lost acknowledgement, stuck orders, a dead worker."""

from collections import Counter
from dataclasses import dataclass, field

import pytest

from runner.checkers import describe_violations
from runner.checkers.delivery import find_lost
from runner.checkers.intervals import Section, peak_keys
from runner.checkers.order import find_out_of_order, find_regressions
from runner.services import group_offsets, topic_ends


@dataclass
class Rush:
    """What was posted, what the sink saw, and what the broker says at the end."""

    load: object
    stuck: set
    paused_ns: int = 0
    resumed_ns: int = 0
    armed_ns: int = 0
    lost_ns: int = 0
    killed_ns: int = 0
    applied_while_stuck: set = field(default_factory=set)
    calls: list = field(default_factory=list)
    ends: dict = field(default_factory=dict)
    behind: dict = field(default_factory=dict)

    @property
    def accepted(self):
        return [(r.context["order"], r.context["version"]) for r in self.load.history if r.status in (200, 202)]

    @property
    def applied(self):
        """(order, version) in the order in which the sink applied them."""
        return [(c["order"], c["version"]) for c in sorted(self.calls, key=lambda c: c.get("applied", 0)) if "applied" in c]


@pytest.fixture(scope="module")
def rush(lab):
    """560 events, meanwhile a still broker and a lost acknowledgement; ten orders are stuck until all others should be applied; a worker dies."""
    numbers = lab.random.sample(range(1000, 100_000), 82)
    hot, orders = [f"order-{n}" for n in numbers[:2]], [f"order-{n}" for n in numbers[2:]]
    sink, kafka = lab.peer("sink"), lab.address("kafka")
    stuck = lab.random.sample(orders, 10)
    sink.set(stuck=stuck)
    with lab.load(users=20, at_most_s=30, plan={"hot": hot, "orders": orders}) as load:
        run = Rush(load, set(stuck))
        load.until(lambda: sum(topic_ends(kafka, "orders").values()) >= 60, "60 events in the topic")
        lab.pause("kafka")
        run.paused_ns = lab.mark("Kafka stands still")
        since = load.elapsed_s
        lab.until(lambda: load.elapsed_s > since + 0.7, at_most_s=5)
        run.resumed_ns = lab.mark("Kafka goes on")
        lab.resume("kafka")
        # This comes second: who asks for no acknowledgement (acks=0) gets none that could be lost, and the load ends here.
        load.until(lambda: sum(topic_ends(kafka, "orders").values()) >= 100, "100 events in the topic")
        run.armed_ns = lab.mark("an acknowledgement will be lost")
        lost = lab.wire("kafka").lose_reply(when="^Produce")
        load.until(lost.fired, "an acknowledgement that can be lost")
        run.lost_ns = lab.mark("the acknowledgement of an event is lost")
    lab.mark("all events are posted; ten orders are stuck")

    def applied():
        return {(c["order"], c["version"]) for c in sink.calls() if "applied" in c}

    due = {event for event in run.accepted if event[0] not in run.stuck}
    lab.until(lambda: due <= applied(), at_most_s=5)
    run.applied_while_stuck = applied()
    lab.kill("worker-1")
    run.killed_ns = lab.mark("a worker is dead")
    sink.set(stuck=[])
    lab.mark("the ten orders go on")

    def behind():
        ends, committed = topic_ends(kafka, "orders"), group_offsets(kafka, "orders")
        return {p: (committed.get(("orders", p), 0), end) for p, end in ends.items() if committed.get(("orders", p), 0) < end}

    lab.until(lambda: set(run.accepted) <= applied() and not behind(), at_most_s=15)
    run.calls, run.ends, run.behind = sink.calls(), topic_ends(kafka, "orders"), behind()
    return run


def test_the_contract_holds(rush, lab):
    """POST /orders/{id}/events answers 202 once the event is accepted: at least 95% of the time, a broker that stands still for a moment included.

    Why: shops are told something else than "accepted, not yet applied", or nothing at all.
    """
    asked = rush.load.history
    wrong = [r for r in asked if r.status != 202]
    if len(wrong) < len(asked) and sum((r.status or 500) < 500 for r in wrong) <= 0.05 * len(asked):
        lab.require_calm(rush.load)  # slowness explains late answers and 5xx, but no other status, and not that nothing is accepted
    assert len(asked) >= 100, f"twenty shops got only {len(asked)} answers: they wait for each"
    kinds = Counter(f"status {r.status}" for r in wrong).most_common(3)
    lab.at_most(len(wrong) / len(asked), 0.05, f"{len(wrong)} of {len(asked)} answers were not 202: {kinds}", "other answers")


def test_an_answer_means_that_the_broker_has_it(rush, lab):
    """While Kafka stands still, no event is answered with 202: nobody can have stored it.

    Why: the answer does not wait for the broker's acknowledgement, so an event can be accepted and never exist.
    """
    lab.require(rush.resumed_ns, f"{rush.load.missed} did not come")
    posted = [r for r in rush.load.history if rush.paused_ns < r.start_ns < rush.resumed_ns]
    answered = [r for r in posted if r.status in (200, 202) and r.end_ns < rush.resumed_ns]
    assert not answered, f"{len(answered)} events were posted and accepted while no broker ran"
    touched = rush.load.history.touching(rush.paused_ns, rush.resumed_ns)
    lab.require(len(touched) >= 3, "no shop was waiting for an answer while Kafka stood still")


def test_a_lost_acknowledgement_is_no_lost_event(rush, lab):
    """When the broker has stored events and its acknowledgement is lost on the way, the shops that wait for it still get their 202.

    Why: the producer takes the loss of an answer for the loss of the event, and does not ask again.
    """
    lab.require(rush.lost_ns, f"{rush.load.missed} did not come")
    # Some may have their answer before the proxy's word that it has lost one is here.
    waiting = [r for r in rush.load.history if r.start_ns < rush.lost_ns and rush.armed_ns < r.end_ns]
    lab.require(waiting, "no shop was waiting when the acknowledgement was lost")
    turned_away = [r for r in waiting if r.status not in (200, 202)]
    seen = Counter(f"status {r.status}" for r in turned_away).most_common(2)
    assert not turned_away, f"{len(turned_away)} of {len(waiting)} shops that were waiting got no 202: {seen}"


def test_events_of_an_order_are_applied_in_order(rush, lab):
    """Each order's events reach the sink for the first time in the order in which they were accepted: 1, 2, 3, ...

    Why: two events of one order travel by ways on which the later can overtake the earlier.
    """
    lab.require(len(rush.applied) >= 200, f"only {len(rush.applied)} events were applied")
    violations = find_out_of_order(rush.applied)
    assert not violations, describe_violations(violations)


def test_an_order_never_goes_back(rush, lab):
    """The sink never replaces a version of an order by an older one, redeliveries after the death of a worker included.

    Why: a redelivered event is written as if it were new.
    """
    lab.require(len(rush.applied) >= 200, f"only {len(rush.applied)} events were applied")
    violations = find_regressions(rush.applied)
    assert not violations, describe_violations(violations)
    puts = [c for c in rush.calls if "version" in c]
    mine = {(c["order"], c["version"]) for c in puts if c["replica"] == "worker-1"}
    again = [c for c in puts if c["replica"] == "worker-2" and c["start_ns"] > rush.killed_ns and (c["order"], c["version"]) in mine]
    lab.require(again, "the second worker got no event that the dead one had tried to write")


def test_every_accepted_event_is_applied(rush, lab):
    """Within 15 s of a worker's death every accepted event is applied, and the group's offsets have reached the end of the log.

    Why: an event was committed before it was applied and died with its worker, or its partition was not taken over.
    """
    accepted = rush.accepted
    lab.require(len(accepted) >= 200, f"only {len(accepted)} events were accepted")
    lost = find_lost(accepted, rush.applied)
    examples = ", ".join(f"{x.id[0]} version {x.id[1]}" for x in lost[:3])
    assert not lost, f"{len(lost)} of {len(accepted)} accepted events were never applied: {examples}"
    assert not rush.behind, f"partitions whose committed offset is behind the log's end: {rush.behind}"


def test_the_work_is_spread(rush, lab):
    """At least 4 orders are being written at the same time, at least 3 of the 6 partitions hold events, and the workers share them.

    Why: something on the way lets only one event through at a time, or every worker does all the work.
    """
    writes = [c for c in rush.calls if c["method"] == "PUT" and c["end_ns"] and "version" in c]  # without one: its worker died as it sent it
    lab.require(len(writes) >= 200, f"only {len(writes)} writes reached the sink")
    peak = peak_keys(Section(c["order"], c["start_ns"], c["end_ns"]) for c in writes if c["order"] not in rush.stuck)
    lab.at_least(peak, 4, f"never more than {peak} orders were being written at once", "orders written at once")
    used = sum(end > 0 for end in rush.ends.values())
    lab.at_least(used, 3, f"only {used} of 6 partitions hold events", "partitions that hold events")
    before = [(c["replica"], (c["order"], c["version"])) for c in writes if c["start_ns"] < rush.killed_ns]
    one, other = ({event for writer, event in before if writer == worker} for worker in ("worker-1", "worker-2"))
    seen = f"both workers wrote {len(one & other)} of {len(one | other)} events"
    lab.at_most(len(one & other) / max(len(one | other), 1), 0.4, seen, "part that both workers write")
    lab.require_calm(rush.load)  # a worker that gets no CPU comes late
    idle = [worker for worker, wrote in (("worker-1", one), ("worker-2", other)) if not wrote]
    assert not idle, f"{' and '.join(idle)} wrote nothing before worker-1 died"


def test_a_stuck_order_holds_up_no_other(rush, lab):
    """While ten orders are stuck, the events of all others are applied: at most a quarter of them waits.

    Why: an event that fails is retried in a place that others have to pass.
    """
    due = [event for event in rush.accepted if event[0] not in rush.stuck]
    lab.require(len(due) >= 150, f"only {len(due)} events of other orders were accepted")
    waiting = [event for event in due if event not in rush.applied_while_stuck]
    lab.at_most(len(waiting) / len(due), 0.25, f"{len(waiting)} of {len(due)} events of other orders were waiting after 5 s", "events held up")
