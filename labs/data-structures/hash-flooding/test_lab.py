"""Hash flooding: what lists of one kind after the other cost, by the kernel; then eight gates beside long lists, which later are a laptop's."""

import json
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from itertools import groupby
from pathlib import Path

import pytest

from runner.errors import AppError

APP = "app-1"
GATES, LONG_SENDERS = 8, 3
PAUSE_S = 0.03  # of a gate after each answer
LONG = (4000, 5000)  # tags in a long list, from and to
SHORT, LONGEST = 1250, 10_000
LAPTOP_KINDS = ("laptop-1", "laptop-2", "laptop-3")  # what it sends while the gates are at work
ROUNDS = (1, 2, 4, 8, 16, 32, 64)  # the lists of a kind after which it is seen whether they have told enough
ENOUGH_CPU_S, AT_MOST_S = 0.08, 0.8
TICK_S = 0.02  # of the kernel's clock for CPU time: a hundredth for the user's part, and one for the system's
BEFORE, TOGETHER, TOGETHER_AT_MOST_S = 300, 300, 3.0  # lists of the gates before the laptop comes, and with it
SILENT_S = 19  # without an answer for so long: the senders give up after 20 s
TIMES_ORDINARY, TIMES_SHORT, TIMES_BEFORE = 4, 16, 3
WAIT_TIMES = 4  # as long as its CPU: less may have been a wait for a core, of which a long list has more than a short one
TIMES_KIT, TIMES_WORK = 16, 2  # what an ordinary list, and the time before the laptop, count for at most

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
    kit_s: float = 0.0  # of CPU that the kit has used to read and to sort them; ordinary ones only
    fastest_s: float = math.inf  # the shortest time to an answer: the others may have had to wait for a core
    refused: Counter = field(default_factory=Counter)  # status -> lists that were not counted
    mistakes: list = field(default_factory=list)
    silence: str = ""  # why there was no answer, after which nothing more is sent

    def at_least_s(self):
        """What one list has cost at least: what the clock's ticks may have added does not count."""
        return max(self.cpu_s - TICK_S, 0) / self.lists

    def at_most_s(self):
        return max(self.cpu_s, TICK_S) / self.lists

    def counts_s(self):
        """What the CPU of an ordinary list counts for when another is compared with it: one that is made dear makes no other one cheap."""
        return min(self.at_most_s(), TIMES_KIT * self.kit_s / self.lists)

    def times(self, other, cpu_s):
        """How many times as dear a list is as one of the other probe, whose CPU counts as `cpu_s`: by CPU, or by a time that CPU does not explain.

        By time too: what a child has used that nobody waits for, the kernel adds to nobody's.
        """
        is_told_by_cpu = self.fastest_s < WAIT_TIMES * self.at_most_s()
        return max(self.at_least_s() / cpu_s, 0 if is_told_by_cpu else self.fastest_s / other.fastest_s)

    def told(self):
        return f"{self.cpu_s / self.lists * 1000:.1f} ms of CPU and {self.fastest_s * 1000:.1f} ms of time"


@dataclass
class Day:
    """What the run has shown."""

    long: int  # tags in a long list that is sent alone
    mistakes: list = field(default_factory=list)  # in the contract's examples
    probes: dict = field(default_factory=dict)  # (kind, size) -> Probe
    load: object = None

    @property
    def silence(self):
        return next((probe.silence for probe in self.probes.values() if probe.silence), "")

    @property
    def plan(self):
        """The kinds of lists that are sent alone, each with its length."""
        ordinary = [("ordinary", size) for size in (SHORT, LONGEST, self.long)]
        return [*ordinary, ("laptop-4", LONGEST), *((kind, self.long) for kind in ("ascending", "rolls", "same", *LAPTOP_KINDS))]

    def cost(self, lab, kind, size):
        """A probe that tells what a list of this kind costs."""
        probe = self.probes.get((kind, size))
        lab.require(probe and probe.lists, f"no list of {size:,} tags of the kind {kind} was answered")
        return probe


@pytest.fixture(scope="module")
def day(lab):
    """Lists of eight kinds, one after the other; then 300 lists of eight gates beside long ones, and 300 more while the long ones are a laptop's."""
    day = Day(lab.random.randint(*LONG), list(try_examples(lab)))
    for kind, size in day.plan:
        probe = day.probes[kind, size] = send_lists(lab, kind, size)
        if probe.silence:
            return day
        lab.mark(f"{probe.lists} lists of {size:,} tags, {kind}: {probe.told()} each")
    plan = {"kinds": LAPTOP_KINDS, "long": LONG, "pause_s": PAUSE_S, "before": BEFORE, "together": TOGETHER, "at_most_s": TOGETHER_AT_MOST_S}
    with lab.load(users=GATES + LONG_SENDERS, at_most_s=45, plan=plan) as day.load:
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
            if not probe.lists:
                (lab.folder / f"{kind}.json").write_text(json.dumps({"tags": reads}))
            if kind == "ordinary":
                probe.kit_s += read_and_sort(json.dumps({"tags": reads}))
            sent_s = time.monotonic()
            try:
                answer = lab.call("POST", "/reads", {"tags": reads})
            except AppError as error:
                lab.until(lambda: False, at_most_s=0.5)  # if it has died, this tells of it
                probe.silence = f"a list of {size:,} tags of the kind {kind}: {error}"
                return probe
            probe.fastest_s = min(probe.fastest_s, time.monotonic() - sent_s)
            probe.lists += 1
            if answer.status != 200:
                probe.refused[answer.status] += 1
            elif mistake := tags.find_mistake(answer.json(), right):
                probe.mistakes.append(f"a list of {size:,} tags of the kind {kind}: {mistake}")
        probe.cpu_s = lab.cpu_s(APP) - before_s
        if probe.cpu_s >= ENOUGH_CPU_S or time.monotonic() > began_s + AT_MOST_S:
            break
    return probe


def read_and_sort(body):
    """Seconds of CPU that the kit needs for what is the least that an app has to do: to read a list, and to bring equal tags together."""
    began_s = time.thread_time()
    sum(1 for _ in groupby(sorted(json.loads(body)["tags"])))
    return time.thread_time() - began_s


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
    """A list costs at most 4 times the CPU of an ordinary one of as many tags, and takes at most 4 times as long, whatever is in it, in any order.

    Why: which tags are in the list decides how often they are compared, and whoever knows how has chosen tags that all meet in one place.
    """
    pairs = [(day.cost(lab, kind, size), day.cost(lab, "ordinary", size)) for kind, size in day.plan if kind != "ordinary"]
    worst, ordinary = max(pairs, key=lambda pair: pair[0].times(pair[1], pair[1].counts_s()))
    kit_ms = ordinary.kit_s / ordinary.lists * 1000
    seen = f"a list like {worst.kind}.json in the run's folder cost {worst.told()}, an ordinary one of as many tags {ordinary.told()}"
    seen += f"; the kit reads and sorts one in {kit_ms:.1f} ms"
    lab.at_most(worst.times(ordinary, ordinary.counts_s()), TIMES_ORDINARY, seen, "times the cost of an ordinary list")


def test_cost_grows_as_the_list_does(day, lab):
    """Eight times as many tags cost at most 16 times as much CPU, and take at most 16 times as long.

    Why: for each tag all those before it are looked through.
    """
    short, long = (day.cost(lab, "ordinary", size) for size in (SHORT, LONGEST))
    seen = f"an ordinary list of {LONGEST:,} tags cost {long.told()}, one of {SHORT:,} tags {short.told()}"
    lab.at_most(long.times(short, short.at_most_s()), TIMES_SHORT, seen, "times the cost for 8 times the tags")


def test_the_gates_go_on(day, lab):
    """While the laptop sends its lists, the gates need at most 3 times as long for theirs as before, when others sent as long ones.

    Why: a process counts one list after the other, and whoever comes behind a dear one waits for it.
    """
    lab.require(day.load, "it did not come so far: a list was left without an answer")
    gates, others, laptop = (day.load.history.where(sender=sender) for sender in ("gate", "rotterdam", "laptop"))
    lab.require(len(laptop) >= 3, f"the laptop has sent only {len(laptop)} lists")
    lab.require(gates and others, "the gates have sent nothing")
    came_ns = laptop.records[0].start_ns
    before = sum(r.status == 200 for r in gates if r.end_ns <= came_ns)
    together = sum(r.status == 200 for r in gates if r.end_ns > came_ns)
    lab.require(before >= BEFORE / 10, f"the gates had only {before} answers before the laptop came")
    before_s = (came_ns - gates.records[0].start_ns) / 1e9
    together_s = (max(r.end_ns for r in gates) - came_ns) / 1e9
    # What the time before comes to without any other wait: one pause, and one list, after the other.
    work_s = before / GATES * PAUSE_S
    work_s += sum(n * day.cost(lab, "ordinary", size).at_most_s() for n, size in ((before, SHORT), (len(others), day.long)))
    times = together_s / max(together, 1) * before / min(before_s, TIMES_WORK * work_s)
    seen = f"before, {before} lists of the gates were counted in {before_s:.1f} s (pauses and CPU: {work_s:.1f} s)"
    seen += f", and with the laptop {together} in {together_s:.1f} s: each took {times:.1f} times as long"
    lab.require_calm(day.load)
    lab.at_most(times, TIMES_BEFORE, seen, "times as long for the gates' lists", is_time=True)
