"""Goroutine leak: searches, and a crowd at the speller, which is stuck. Then all is quiet, and each replica is asked by SIGQUIT what is left."""

import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

READERS, LEAVERS, CROWDS = 10, 20, 2
USUAL, BROKEN, HEAVY, PATIENT, NOBODY = 300, 40, 8, 2, 10
LEFT = 240  # so many that one goroutine for each is too many
ODD = (16, 10)  # answers that ask for the one missing dictionary and for the other, a replica
SPELLED, GIVEN_UP = 256, 64
IN_TIME_NS = 1_000_000_000  # after the answer, or after the client has left, a call may be under way for so long
QUIET_S = 3.0
TOLERATED = 0.1
THREADS, GOROUTINES, AT_ONCE, PLACES = 64, 64, 8, 10
LOADERS = {
    "d1": "loadStems", "d2": "loadLemmas", "d3": "loadSynonyms", "d4": "loadPhonemes",
    "d5": "loadTrigrams", "d6": "loadCompounds", "d7": "loadAccents", "d8": "loadNumerals",
}  # fmt: skip
LOADER = re.compile(rf"^search/lexis\.({'|'.join(LOADERS.values())})\(", re.MULTILINE)
GOROUTINE = re.compile(r"^goroutine [1-9]\d*[^\n]* \[[^\n]*\]:\n((?:[^\n]+\n)+)", re.MULTILINE)


@dataclass
class Plan:
    """What is asked, and what the index servers do with it."""

    random: object
    words: dict = field(default_factory=dict)  # word -> {server: what it does, "dictionary": of the odd answer}
    fastest: dict = field(default_factory=dict)  # word -> the first server that can answer
    groups: dict = field(default_factory=dict)  # word -> what kind of word it is
    pinned: dict = field(default_factory=dict)  # word -> the replica that is asked
    example = ""

    def add(self, group, *doings, fastest=None, **more):
        """One more word; its servers do these things in random order."""
        word = f"{self.random.randrange(16**10):010x}"
        order = self.random.sample("123", 3)
        self.words[word] = {**dict(zip(order, doings, strict=True)), **more}
        self.fastest[word] = next((server for server, doing in zip(order, doings, strict=True) if doing == fastest), None)
        self.groups[word] = group
        return word

    def names(self, *groups):
        chosen = [word for word, group in self.groups.items() if group in groups]
        return self.random.sample(chosen, len(chosen))


def draw_plan(random, replicas):
    plan = Plan(random)
    for _ in range(USUAL):
        plan.add("usual", "prompt", random.choice(["slow", "hung"]), "slow", fastest="prompt")
    for _ in range(BROKEN):
        plan.add("failing", "broken", "prompt", "slow", fastest="prompt")
    for _ in range(HEAVY):
        plan.add("heavy", "heavy", "hung", "hung", fastest="heavy")
    for _ in range(PATIENT):
        plan.add("patient", "slow", "hung", "hung", fastest="slow")
    for _ in range(NOBODY):
        plan.add("unanswerable", "broken", "broken", "broken")
    for _ in range(LEFT):
        plan.add("left", "hung", "hung", "hung")
    for replica in range(1, replicas + 1):
        for dictionary, count in zip(random.sample(sorted(LOADERS), 2), ODD, strict=True):
            for _ in range(count):
                word = plan.add("odd", "odd", "late", "hung", fastest="late", dictionary=dictionary)
                plan.pinned[word] = replica
    plan.example = plan.add("example", "prompt", "slow", "slow", fastest="prompt")
    return plan


@dataclass
class Night:
    """What the run has shown."""

    plan: Plan
    load: object = None
    problems: list = field(default_factory=list)  # with the contract's examples
    searches: list = field(default_factory=list)  # the index servers' ledger
    spellings: list = field(default_factory=list)  # the speller's
    threads: dict = field(default_factory=dict)  # replica -> its threads while the speller was stuck
    at_once: dict = field(default_factory=dict)  # replica -> the words that it had at the speller then
    reports: dict = field(default_factory=dict)  # replica -> what GET /stuck answered when all was quiet
    stacks: dict = field(default_factory=dict)  # replica -> the stacks of its goroutines then, by Go's runtime

    def lost(self, replica):
        """How many goroutines of a replica stand in each of the library's loaders."""
        return Counter(found[1] for stack in self.stacks[replica] if (found := LOADER.search(stack)))

    def others(self, replica):
        """The stacks of all others."""
        return [stack for stack in self.stacks[replica] if not LOADER.search(stack)]


@pytest.fixture(scope="module")
def night(lab):
    """Some 410 searches while the speller is stuck and a crowd wants words spelled; it goes on when nobody else is left. Then quiet."""
    index, speller = lab.peer("index"), lab.peer("speller")
    plan = draw_plan(lab.random, len(lab.replicas))
    night = Night(plan)
    spelled, given_up = ([f"{lab.random.randrange(16**8):08x}" for _ in range(count)] for count in (SPELLED, GIVEN_UP))
    words = plan.names("heavy", "patient") + plan.names("usual", "failing", "odd", "unanswerable")  # the longest first: one for each reader
    told = {"words": words, "left": plan.names("left"), "spelled": spelled, "given_up": given_up, "pinned": plan.pinned}
    index.set(words=plan.words)
    for n, name in enumerate(lab.replicas, 1):
        night.problems += [f"{name}: {problem}" for problem in try_examples(lab, n, plan)]
    others = len(words) + LEFT + GIVEN_UP
    speller.set(stuck=True)
    with lab.load(users=READERS + LEAVERS + CROWDS, at_most_s=40, plan=told) as night.load:
        try:
            night.load.until(seldom(lambda: sum(r.name != "/spell" for r in night.load.so_far()) >= others), "the end of all but those who wait")
            for name in lab.replicas:
                night.at_once[name] = sum(c["replica"] == name and not c["end_ns"] for c in speller.calls())
                night.threads[name] = lab.threads(name)  # after that: so none of these words has lost its thread
        finally:
            speller.set(stuck=False)
            lab.mark("the speller goes on")
    lab.until(seldom(lambda: all(is_quiet(lab, n) for n in range(1, len(lab.replicas) + 1))), at_most_s=QUIET_S)
    night.searches, night.spellings = index.calls(), [c for c in speller.calls() if "word" in c]
    for n, name in enumerate(lab.replicas, 1):
        night.reports[name] = read_report(lab, n)
    for name in lab.replicas:
        printed = lab.quit(name).rpartition("SIGQUIT: quit\n")[2]  # what the app has logged before is not what is left
        night.stacks[name] = [stack for stack in GOROUTINE.findall(printed) if "\ncreated by runtime." not in stack]
    return night


def seldom(ask, every_s=0.2):
    """A question that is dear, for a wait that asks all the time."""
    asked_s = [0.0]

    def answer():
        if time.monotonic() < asked_s[0] + every_s:
            return False
        asked_s[0] = time.monotonic()
        return ask()

    return answer


def try_examples(lab, n, plan):
    """What is wrong with a replica's answers to the contract's examples."""
    found = lab.call("GET", f"/search?word={plan.example}", replica=n)
    if found.status != 200 or not isinstance(found.json(), dict) or found.json().get("word") != plan.example or not found.json().get("documents"):
        yield f"GET /search answered {found.status} {found.text[:80]!r}"
    spelled = lab.call("GET", "/spell?word=wrod", replica=n)
    if spelled.status != 200 or not isinstance(spelled.json(), dict) or not str(spelled.json().get("spelling")).startswith("dorw"):
        yield f"GET /spell answered {spelled.status} {spelled.text[:80]!r}"
    report = lab.call("GET", "/stuck", replica=n)
    if not read_places(report.json()):
        yield f"GET /stuck answered {report.status} {report.text[:80]!r}"


def read_places(report):
    """The (function, count) of a report; none when it is no report."""
    rows = [row for row in report if isinstance(row, dict)] if isinstance(report, list) else []
    places = [(row.get("function"), row.get("count")) for row in rows]
    return [(function, count) for function, count in places if isinstance(function, str) and isinstance(count, int)]


def read_report(lab, n):
    return read_places(lab.call("GET", "/stuck", replica=n).json())


def is_quiet(lab, n):
    """Whether there is no reason to wait any longer. It is the replica's own word, and decides nothing else."""
    report = read_report(lab, n)
    return bool(report) and sum(count for _, count in report) <= GOROUTINES / 3 + sum(ODD)


def count_late(pairs):
    """Of calls, each with the time after which nobody needs it, those that were not hung up on within a second."""
    return sum(not c.get("hung_up_ns") or c["hung_up_ns"] > end_ns + IN_TIME_NS for c, end_ns in pairs)


def test_the_contract_holds(night, lab):
    """The contract's examples work, and whoever waits for a word is answered when the speller goes on; nobody is turned away before.

    Why: a replica refuses who would only have to wait.
    """
    assert not night.problems, f"{len(night.problems)} examples failed, such as {night.problems[0]}"
    known = {(c["word"], c.get("spelling")) for c in night.spellings}
    asked, left = (night.load.history.where(name=name) for name in ("/spell", "/spell (left)"))
    lab.require(len(asked) >= SPELLED / 2, f"only {len(asked)} words were to be spelled: {night.load.missed} did not come")
    wrong = [r for r in asked if r.status != 200 or not isinstance(r.body, dict) or (r.context["word"], str(r.body.get("spelling"))) not in known]
    wrong += [r for r in left if r.status]  # while the speller hangs there is no answer
    clients = len(asked) + len(left)
    kinds = Counter(f"status {r.status}" for r in wrong).most_common(3)
    seen = f"{len(wrong)} of {clients} clients that wanted a word spelled were turned away, or got no right answer: {kinds}"
    lab.at_most(len(wrong) / clients, 0.05, seen, "words not spelled")


def test_the_fastest_server_that_can_answers(night, lab):
    """Of every kind of word at least 90% of the searches are answered with what the first server that could answer said, within 1 s after it did.

    Why: a replica waits for more than it needs, takes a failure for an answer, or gives up while a server is still at work.
    """
    said = {c["document"]: c for c in night.searches if c.get("document")}
    right, asked, seen = Counter(), Counter(), Counter()
    for record in night.load.history.where(name="/search"):
        word = record.context["word"]
        documents = record.body.get("documents") if isinstance(record.body, dict) else None
        call = said.get(str(documents[0])) if isinstance(documents, list) and documents else None
        group = night.plan.groups[word]
        asked[group] += 1
        if night.plan.fastest[word] is None and record.status == 502:
            right[group] += 1
        elif record.status != 200 or not call or call["word"] != word:
            seen[group, f"status {record.status}"] += 1
        elif call["server"] != night.plan.fastest[word]:
            seen[group, "a slower server's answer"] += 1
        elif record.end_ns > call["end_ns"] + IN_TIME_NS:
            seen[group, "it late"] += 1
        else:
            right[group] += 1
    lab.require(asked, "no word was searched")
    worst = min(asked, key=lambda group: right[group] / asked[group])
    others = ", ".join(f"{count} got {what}" for (group, what), count in seen.most_common() if group == worst)
    if seen:
        lab.require_calm(night.load)
    message = f"{worst} words: {right[worst]} of {asked[worst]} searches had the answer of the first server that could; {others}"
    lab.at_most(1 - right[worst] / asked[worst], TOLERATED, message, "other answers, worst kind of word")
    lab.require(len(asked) == 6, f"only {', '.join(asked)} words were searched")


def test_losing_calls_are_cancelled(night, lab):
    """Within 1 s after a search is answered, the calls to the other index servers are cancelled: at least 90% of them.

    Why: nothing tells the calls that have lost, and the servers work on for nobody.
    """
    answered = {r.context["word"]: r for r in night.load.history.where(name="/search") if r.status == 200}
    losers = [c for c in night.searches if c.get("kind") in ("slow", "hung") and night.plan.fastest.get(c["word"]) != c["server"]]
    losing = [(c, answered[c["word"]].end_ns) for c in losers if c["word"] in answered]
    lab.require(len(losing) >= USUAL / 4, f"only {len(losing)} calls have lost")
    late = count_late(losing)
    if late:
        lab.require_calm(night.load)
    seen = f"{late} of {len(losing)} calls that had lost were not cancelled within 1 s"
    lab.at_most(late / len(losing), TOLERATED, seen, "losing calls that go on")


def test_nobody_works_for_who_has_left(night, lab):
    """Within 1 s after a client has left, the calls made for it are cancelled, at least 90% of them; and none is begun for it any more.

    Why: the work does not hang on the request's context, or waits for its turn without a look at it.
    """
    left = {r.context["word"]: r.end_ns for r in night.load.history if r.context.get("left")}
    calls = [(c, left[c["word"]]) for c in night.searches if c.get("word") in left]
    lab.require(len(calls) >= LEFT / 2, f"only {len(calls)} calls were made for clients that left")
    late = count_late(calls)
    if late:
        lab.require_calm(night.load)
    seen = f"{late} of {len(calls)} calls for clients that had left were not cancelled within 1 s"
    lab.at_most(late / len(calls), TOLERATED, seen, "calls that go on for who left")
    begun = sum(c["start_ns"] > left[c["word"]] for c in night.spellings if c["word"] in left)
    lab.at_most(begun, GIVEN_UP / 4, f"{begun} words were sent to the speller after the client had left", "words sent for who left")
    lab.require(night.at_once, f"{night.load.missed} did not come")


def test_threads_stay_few(night, lab):
    """While the speller is stuck and a crowd waits, a replica has at most 64 threads, and one for each core; each word at the speller holds one.

    Why: each call of the vendor's library blocks a thread of the operating system, and nothing bounds how many there are.
    """
    lab.require(night.threads, f"{night.load.missed} did not come")
    most = max(night.threads, key=night.threads.get)
    seen = f"{most} had {night.threads[most]} threads, with {night.at_once[most]} words at the speller"
    lab.at_most(night.threads[most], THREADS + (os.cpu_count() or 1), seen, "threads of a replica")
    for name, words in night.at_once.items():
        seen = f"{name} had {words} words at the speller and only {night.threads[name]} threads: has it a client of its own?"
        assert night.threads[name] >= words, seen


def test_words_are_spelled_side_by_side(night, lab):
    """While a crowd waits, a replica has at least 8 words at the speller at once.

    Why: a lock is around the library, or too few are let in.
    """
    lab.require(night.at_once, f"{night.load.missed} did not come")
    least = min(night.at_once, key=night.at_once.get)
    lab.at_least(night.at_once[least], AT_ONCE, f"{least} had {night.at_once[least]} words at the speller at once", "words at the speller")


def test_nothing_is_left_behind(night, lab):
    """When all has been quiet for 3 s, a replica has at most 64 goroutines, but for those that the vendor's library does not give back.

    Why: goroutines wait for a channel that nobody reads, or for an answer that nobody needs.
    """
    for name, stacks in night.stacks.items():
        assert stacks, f"{name} printed no goroutines at SIGQUIT"
        count = len(night.others(name))
        where, crowd = Counter(place_of(stack) for stack in stacks).most_common(1)[0]
        lab.at_most(count, GOROUTINES, f"{name} still had {count} goroutines, {crowd} of them in {where}", "goroutines left")
    lab.require(len(night.load.history.where(name="/search")) >= USUAL, "too few searches to see a leak")


def test_the_report_names_who_is_stuck(night, lab):
    """GET /stuck has among its first ten places the library's functions that do not return, each with its number of goroutines, and the others too.

    Why: the report tells what somebody once found, or who started a goroutine, and not where it stands.
    """
    for name, report in night.reports.items():
        lost, told = night.lost(name), Counter()
        for call in night.searches:
            if call["replica"] == name and call.get("kind") == "odd" and call["status"] == 200:
                told[LOADERS[night.plan.words[call["word"]]["dictionary"]]] += 1
        lab.require(len(told) == len(ODD) and min(told.values()) >= min(ODD) / 2, f"{name}: answers asked for {dict(told) or 'nothing missing'}")
        for loader, count in told.items():
            assert lost[loader], f"{name}: no goroutine is in search/lexis.{loader}, for which {count} answers asked: was the library changed?"
            said = next((n for function, n in report[:PLACES] if function == f"search/lexis.{loader}"), 0)
            first = ", ".join(f"{function} {n}" for function, n in report[:3]) or "nothing"
            seen = f"{name} has {lost[loader]} goroutines in search/lexis.{loader}; its report begins with {first}"
            assert abs(said - lost[loader]) <= lost[loader] / 10, seen
        others = night.others(name)
        places = set().union(*map(functions_of, others))
        told_of = sum(count for function, count in report if function in places)
        seen = f"{name} has {len(others)} other goroutines, and its report has {told_of} in functions in which some of them are"
        lab.at_least(told_of, len(others) / 2, seen, "other goroutines in the report")


def functions_of(stack):
    """The functions of a stack, the innermost first."""
    return [line.rpartition("(")[0] for line in stack.splitlines() if not line.startswith(("\t", "created by"))]


def place_of(stack):
    """The innermost function of a stack that is the submission's; the outermost where none is."""
    functions = [function for function in functions_of(stack) if not (function.startswith("runtime.") or ".gowrap" in function)]
    return next((function for function in functions if function.startswith(("main.", "search/"))), functions[-1] if functions else "?")
