"""Hash flooding: what lists of one kind after the other cost, by the kernel's word; then eight gates at work, and a laptop that joins them."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from runner.errors import AppError

APP = "app-1"
GATES, LAPTOPS = 8, 3
LONG = 4000  # tags in a list
GROWTH = (1000, 8000)
LAPTOP_KINDS = ("laptop-1", "laptop-2", "laptop-3")
PROBES = (*(("ordinary", size) for size in (*GROWTH, LONG)), ("ascending", LONG), *((kind, LONG) for kind in LAPTOP_KINDS))
ROUNDS = (1, 2, 4, 8, 16, 32, 64)  # the lists of a kind after which it is seen whether they have told enough
ENOUGH_CPU_S, AT_MOST_S = 0.12, 0.8
TICK_S = 0.02  # of the kernel's clock for CPU time: a hundredth for the user's part, and one for the system's
ALONE, TOGETHER, TOGETHER_AT_MOST_S = 300, 300, 4.0  # lists of the gates without the laptop, and with it
SILENT_S = 19  # without an answer for so long: the senders give up after 20 s
TIMES_ORDINARY, TIMES_SHORT, TIMES_ALONE = 4, 16, 3

spec = spec_from_file_location("tags", Path(__file__).with_name("tags.py"))
tags = module_from_spec(spec)
spec.loader.exec_module(tags)


@dataclass
class Probe:
    """Lists of one kind and length, one after the other, with nothing else under way."""

    kind: str
    size: int
    lists: int = 0
    cpu_s: float = 0.0  # that the app has used for them
    refused: Counter = field(default_factory=Counter)  # status -> lists that were not counted
    mistakes: list = field(default_factory=list)
    silence: str = ""  # why there was no answer, after which nothing more is sent

    def at_least_s(self):
        """What one list has cost at least: what the clock's ticks may have added does not count."""
        return max(self.cpu_s - TICK_S, 0) / self.lists

    def at_most_s(self):
        return max(self.cpu_s, TICK_S) / self.lists


@dataclass
class Day:
    """What the run has shown."""

    mistakes: list = field(default_factory=list)  # in the contract's examples
    probes: dict = field(default_factory=dict)  # (kind, size) -> Probe
    load: object = None

    @property
    def silence(self):
        return next((probe.silence for probe in self.probes.values() if probe.silence), "")

    def cost(self, lab, kind, size=LONG):
        """A probe that tells what a list of this kind costs."""
        probe = self.probes.get((kind, size))
        lab.require(probe and probe.lists, f"no list of {size:,} tags of the kind {kind} was answered")
        return probe


@pytest.fixture(scope="module")
def day(lab):
    """Lists of six kinds, one after the other; then 300 lists of eight gates, and 300 more while a laptop sends its own."""
    day = Day(mistakes=list(try_examples(lab)))
    for kind, size in PROBES:
        probe = day.probes[kind, size] = send_lists(lab, kind, size)
        if probe.silence:
            return day
        lab.mark(f"{probe.lists} lists of {size:,} tags, {kind}: {probe.cpu_s / probe.lists * 1000:.1f} ms of CPU each")
    plan = {"kinds": LAPTOP_KINDS, "length": LONG, "alone": ALONE, "together": TOGETHER, "at_most_s": TOGETHER_AT_MOST_S}
    with lab.load(users=GATES + LAPTOPS, at_most_s=45, plan=plan) as day.load:
        day.load.until(lambda: any(r.context["sender"] == "laptop" for r in day.load.so_far()), "the laptop's first answer")
        lab.mark("the laptop has its first answer")
    return day


def try_examples(lab):
    """What is wrong with the answers to the contract's examples."""
    big = lab.random.randrange(10**27, 10**28)
    for counted in ([], [(917, 2), (-917, 1)], [(big, 1), (big + 1, 3)], [(sign * n, 2) for n in range(2, 9) for sign in (1, -1)] + [(0, 1)]):
        reads = [tag for tag, times in counted for _ in range(times)]
        answer = lab.call("POST", "/reads", {"tags": reads})
        mistake = tags.find_mistake(answer.json(), tags.answer_for(counted)) if answer.status == 200 else f"status {answer.status}"
        if mistake:
            yield f"the list {reads!s:.80}: {mistake}"


def send_lists(lab, kind, size):
    """Lists of one kind until they have told what one costs. One of each is left in the run's folder."""
    probe, began_s, before_s = Probe(kind, size), time.monotonic(), lab.cpu_s(APP)
    for upto in ROUNDS:
        while probe.lists < upto:
            reads, right = tags.draw_list(lab.random, kind, size)
            if size == LONG and not probe.lists:
                (lab.folder / f"{kind}.json").write_text(json.dumps({"tags": reads}))
            try:
                answer = lab.call("POST", "/reads", {"tags": reads})
            except AppError as error:
                lab.until(lambda: False, at_most_s=0.5)  # if it has died, this tells of it
                probe.silence = f"a list of {size:,} tags of the kind {kind}: {error}"
                return probe
            probe.lists += 1
            if answer.status != 200:
                probe.refused[answer.status] += 1
            elif mistake := tags.find_mistake(answer.json(), right):
                probe.mistakes.append(f"a list of {size:,} tags of the kind {kind}: {mistake}")
        probe.cpu_s = lab.cpu_s(APP) - before_s
        if probe.cpu_s >= ENOUGH_CPU_S or time.monotonic() > began_s + AT_MOST_S:
            break
    return probe


def test_every_answer_is_right(day, lab):
    """Each answer has the right number of tags and of different tags, and the right ten that were read most often.

    Why: tags are compared as something else than the whole numbers that they are, or ties between them are broken by something else than these.
    """
    counted = sum(probe.lists - probe.refused.total() for probe in day.probes.values())
    mistakes = [*day.mistakes, *(mistake for probe in day.probes.values() for mistake in probe.mistakes)]
    if day.load:
        answered = day.load.history.where(lambda r: r.status == 200)
        counted += len(answered)
        mistakes += [f"a list of {r.context['size']:,} tags: {r.context['mistake']}" for r in answered if "mistake" in r.context]
    assert not mistakes, f"{len(mistakes)} answers were wrong, such as that to {mistakes[0]}"
    lab.require(counted >= 50, f"only {counted} lists were counted")


def test_every_list_is_counted(day, lab):
    """At least 99% of the lists that keep to the contract are counted, whatever is in them, and none is left without an answer.

    Why: lists are refused for their length, their look or the time that they take, and the next who sends one like them has done nothing wrong.
    """
    assert not day.silence, day.silence
    asked, lost = Counter(), Counter()
    for probe in day.probes.values():
        asked[probe.kind] += probe.lists
        for status, n in probe.refused.items():
            lost[probe.kind, f"status {status}"] += n
    for record in day.load.history:
        asked[record.context["kind"]] += 1
        if record.status != 200:
            lost[record.context["kind"], f"status {record.status}" if record.status else "no answer"] += 1
    silent = [r for r in day.load.history if r.status is None and r.latency_s > SILENT_S]
    if silent:
        lab.require_calm(day.load)
    assert not silent, f"{len(silent)} lists got no answer within 20 s, such as one of the kind {silent[0].context['kind']}"
    told = ", ".join(f"{n} of the kind {kind} ({what})" for (kind, what), n in lost.most_common(3))
    seen = f"{lost.total()} of {asked.total()} lists were not counted: {told}"
    lab.at_most(lost.total() / asked.total(), 0.01, seen, "lists not counted")
    lab.require(all(asked[kind] for kind in tags.KINDS), f"only lists of the kinds {', '.join(asked)} were sent")


def test_a_list_costs_what_its_length_says(day, lab):
    """A list costs at most 4 times the CPU of an ordinary one of the same length, whatever tags are in it and in whatever order.

    Why: which tags are in the list decides how often they are compared, and whoever knows how has chosen tags that all meet in one place.
    """
    ordinary = day.cost(lab, "ordinary")
    others = [day.cost(lab, kind) for kind in ("ascending", *LAPTOP_KINDS)]
    worst = max(others, key=Probe.at_least_s)
    times = worst.at_least_s() / ordinary.at_most_s()
    costs = [probe.cpu_s / probe.lists * 1000 for probe in (worst, ordinary)]
    seen = f"a list like {worst.kind}.json in the run's folder cost {costs[0]:.0f} ms of CPU, an ordinary one of the same length {costs[1]:.1f} ms"
    lab.at_most(times, TIMES_ORDINARY, seen, "times the CPU of an ordinary list")


def test_cost_grows_as_the_list_does(day, lab):
    """Eight times as many tags cost at most 16 times as much CPU.

    Why: for each tag all those before it are looked through.
    """
    short, long = (day.cost(lab, "ordinary", size) for size in GROWTH)
    costs = [probe.cpu_s / probe.lists * 1000 for probe in (long, short)]
    seen = f"an ordinary list of {long.size:,} tags cost {costs[0]:.1f} ms of CPU, one of {short.size:,} tags {costs[1]:.1f} ms"
    lab.at_most(long.at_least_s() / short.at_most_s(), TIMES_SHORT, seen, "times the CPU for 8 times the tags")


def test_the_gates_go_on(day, lab):
    """While the laptop sends its lists, the gates need at most 3 times as long for theirs as before.

    Why: a process counts one list after the other, and whoever comes behind a long one waits for it.
    """
    lab.require(day.load, "it did not come so far: a list was left without an answer")
    gates, laptop = (day.load.history.where(sender=sender) for sender in ("gate", "laptop"))
    lab.require(len(laptop) >= 3, f"the laptop has sent only {len(laptop)} lists")
    lab.require(gates, "the gates have sent nothing")
    came_ns, left_ns = laptop.records[0].start_ns, max(r.end_ns for r in gates)
    alone = sum(r.status == 200 for r in gates if r.end_ns <= came_ns)
    together = sum(r.status == 200 for r in gates if r.end_ns > came_ns)
    lab.require(alone >= ALONE / 3, f"the gates had only {alone} answers before the laptop came")
    rates = alone / (came_ns - gates.records[0].start_ns) * 1e9, together / (left_ns - came_ns) * 1e9
    times = rates[0] / max(rates[1], 0.1)
    seen = f"the gates had {rates[0]:.0f} lists a second counted, and {rates[1]:.0f} once the laptop was there: each took {times:.1f} times as long"
    lab.require_calm(day.load)
    lab.at_most(times, TIMES_ALONE, seen, "times as long for the gates' lists", is_time=True)
