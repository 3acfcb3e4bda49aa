"""Clients at five nodes; a link that fails one way, two nodes cut off from three, the three without power, writes that stop half-way."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import product

import pytest

from runner.checkers.diagram import draw_violation
from runner.checkers.linear import check_linearizable
from runner.checkers.models import register
from runner.checkers.operations import Operation
from runner.errors import AppError

NODES, USERS, SETTINGS, QUIET_SETTINGS, ROUNDS = 5, 15, 6, 4, 4
CALM_ANSWERS, ONE_WAY_ANSWERS, SPLIT_ANSWERS, CUT_OFF_ANSWERS, WHOLE_ANSWERS = 200, 50, 100, 8, 50
RETRY_S = 0.05
WRONG_BY_S = 5.0  # the clocks
SERVES_WITHIN_S, ANSWERS_WITHIN_S, SYNCED_WITHIN_S = 4.0, 3.0, 3.0  # of the contract
SLACK_S = 0.5  # on a busy machine, beyond them


@dataclass
class Round:
    """A write that reaches its node and one more, then two reads, one after the other."""

    key: str
    is_shut: bool  # whether the first reader's node cannot pass the value on either
    old: object = None  # the write before it, which was finished
    new: object = None
    first: object = None
    second: object = None
    stopped: int = 0  # messages with the value that were lost

    @property
    def is_half_way(self):
        """Whether its value was lost on the way; or, as where nodes fetch values, it had no 200 and the second reader did not find it."""
        return self.stopped > 0 or (self.new.return_ns is None and self.second.result == self.old.argument)


@dataclass
class Store:
    """What the run has done to the nodes, and what it has itself asked of them."""

    lab: object
    name: str  # what the values that it writes begin with; those of the load look alike
    load: object = None
    keys: list = field(default_factory=list)
    quiet: list = field(default_factory=list)
    rounds: list = field(default_factory=list)
    operations: list = field(default_factory=list)
    nodes: list = field(default_factory=list)  # in an order of this run
    examples: list = field(default_factory=list)
    calm_end_ns = cut_ns = serving_ns = split_end_ns = healed_ns = 0
    is_skewable = lost_power = False
    local: dict = field(default_factory=dict)  # key -> what each node has of it when it can ask nobody
    newest: dict = field(default_factory=dict)  # key -> what a read says of it after that
    silent: set = field(default_factory=set)  # nodes that once did not tell what they have
    values: int = 0

    def fresh(self):
        self.values += 1
        return f"{self.name}-{self.values}"

    def ask(self, method, node, key, value=None):
        """One request, and the operation that it was."""
        body = {"value": value} if method == "PUT" else None
        start_ns = time.monotonic_ns()
        answer = None
        with suppress(AppError):
            answer = self.lab.call(method, f"/settings/{key}", body, replica=node)
        is_done = answer is not None and answer.status == 200
        kind, result = ("write", None) if method == "PUT" else ("read", value_of(answer.json() if is_done else None))
        operation = Operation(f"run@{node}", kind, value, result, start_ns, time.monotonic_ns() if is_done else None, key)
        self.operations.append(operation)
        return operation

    def ask_until_done(self, method, node, key, at_most_s=SERVES_WITHIN_S):
        """The same, again and again until it is answered with 200."""
        deadline = time.monotonic() + at_most_s
        while True:
            operation = self.ask(method, node, key, self.fresh() if method == "PUT" else None)
            if operation.return_ns or time.monotonic() > deadline:
                return operation
            time.sleep(RETRY_S)  # as a client would: only another answer tells whether the node serves again

    def own(self, node, key):
        """What a node itself has. One that hangs is not asked again: each time costs 10 s."""
        if node not in self.silent:
            with suppress(AppError):
                answer = self.lab.call("GET", f"/local/{key}", replica=node)
                return value_of(answer.json()) if answer.status == 200 else f"(status {answer.status})"
            self.silent.add(node)
        return "(no answer)"

    def done_at(self, start_ns, method=None):
        """Nodes -> how many requests sent after an instant they have answered with 200."""
        return Counter(r.replica for r in self.load.so_far(start_ns) if r.status == 200 and method in (None, r.method))

    @property
    def minority(self):
        return set(self.nodes[:2])

    @property
    def majority(self):
        return set(self.nodes[2:])

    def pairs(self):
        """Who is cut off in the rounds: with the split's two, every node is twice."""
        return [[self.nodes[(place + i) % NODES] for i in (0, 1)] for place in (2, 4, 1, 3)]


def value_of(body):
    """The value in an answer. What is no string, and so was written by nobody, comes as text, which can be compared with others."""
    value = body.get("value", "(no value)") if isinstance(body, dict) else "(no value)"
    return value if value is None or isinstance(value, str) else f"({value!r})"


@pytest.fixture(scope="module")
def store(lab):
    run_name, load_name = (str(n) for n in lab.random.sample(range(10**5, 10**6), 2))
    store = Store(lab, run_name, nodes=lab.random.sample(range(1, NODES + 1), NODES))
    try_examples(store)
    names = [f"s{n}" for n in lab.random.sample(range(1000, 10_000), SETTINGS + QUIET_SETTINGS + ROUNDS)]
    store.keys, store.quiet, written_once = names[:SETTINGS], names[SETTINGS:-ROUNDS], names[-ROUNDS:]
    store.is_skewable = lab.skew(lab.random.choice(lab.replicas), WRONG_BY_S)
    plan = {"run": load_name, "keys": store.keys, "nodes": NODES}
    with lab.load(users=USERS, endless=True, at_most_s=60, plan=plan) as store.load:
        store.load.until(lambda: len(store.load.so_far()) >= CALM_ANSWERS, f"{CALM_ANSWERS} answers", at_most_s=20)
        store.calm_end_ns = time.monotonic_ns()
        break_a_link(store)
        split(store)
    if store.load.missed:
        return store  # too little was answered in the calm already: the first check says so
    let_them_sync(store)
    stop_writes_half_way(store, written_once)
    return store


def try_examples(store):
    """The contract's examples, judged by the first check."""
    key = f"x{store.lab.random.randrange(10**6)}"
    for node in (2, 1, 5):  # they are up, but may still be electing a leader
        if not store.ask_until_done("GET", node, key).return_ns:
            break
    for method, node, value in [("GET", 2, None), ("PUT", 1, "on"), ("GET", 1, None), ("PUT", 5, "off"), ("GET", 5, None)]:
        store.examples.append(store.ask(method, node, key, value))
        if not store.examples[-1].return_ns:
            break


def break_a_link(store):
    """One node cannot call another, which can call it."""
    one, other = store.lab.random.sample(range(1, NODES + 1), 2)
    cut = store.lab.mesh.cut(one, other, one_way=True)
    store.lab.until(lambda: len(store.load.so_far(cut.at_ns)) >= ONE_WAY_ANSWERS, at_most_s=10)
    cut.heal()


def split(store):
    """Two nodes are cut off from three, and their clocks fall back. The three lose power twice; all are whole again when they have come back."""
    lab = store.lab
    cut = lab.mesh.partition(store.minority, store.majority)
    store.cut_ns = cut.at_ns
    if store.is_skewable:
        for node in store.minority:
            lab.skew(f"app-{node}", -WRONG_BY_S)  # a lease that ends by the clock would now last on
    if lab.until(lambda: has_taken_writes(store, cut.at_ns), at_most_s=2 * SERVES_WITHIN_S):
        store.serving_ns = lab.mark("all three of the majority have taken writes")
        for key in store.quiet:
            store.ask_until_done("PUT", lab.random.choice(sorted(store.majority)), key, at_most_s=1)
    lab.until(lambda: has_seen_enough(store), at_most_s=20)  # a client of a node that hangs waits 6 s for each answer
    store.split_end_ns = time.monotonic_ns()
    back_ns = lose_power(store)
    if store.serving_ns:
        lab.until(lambda: has_taken_writes(store, back_ns), at_most_s=SERVES_WITHIN_S)
    lose_power(store)  # what they had found in their files must still be in them
    store.lost_power = True
    store.healed_ns = time.monotonic_ns()  # before the heal: what is answered during it may be right
    cut.heal()
    lab.until(lambda: len(store.done_at(cut.healed_ns)) == NODES, at_most_s=2 * SERVES_WITHIN_S)
    lab.until(lambda: len(store.load.so_far(cut.healed_ns)) >= WHOLE_ANSWERS, at_most_s=5)


def lose_power(store):
    """The majority's nodes are killed at once, and come back; returns when."""
    down = [f"app-{n}" for n in sorted(store.majority)]
    with ThreadPoolExecutor(len(down)) as pool:
        list(pool.map(store.lab.kill, down))
        list(pool.map(store.lab.restart, down))
    return time.monotonic_ns()


def has_taken_writes(store, since_ns):
    """Whether each node of the majority has answered a write with 200 that was sent after an instant."""
    return set(store.done_at(since_ns, "PUT")) >= store.majority


def has_seen_enough(store):
    cut_off = [r for r in store.load.so_far(store.cut_ns) if r.replica in store.minority]
    served = sum(store.done_at(store.serving_ns or store.cut_ns)[n] for n in store.majority)
    is_refused = len(cut_off) >= CUT_OFF_ANSWERS and sum(r.method == "PUT" for r in cut_off) >= 3
    return is_refused and (served >= SPLIT_ANSWERS or not store.serving_ns)


def stop_writes_half_way(store, keys):
    """A write reaches its own node and one more. A client reads there; then the two are cut off and stand still, and another reads at a third."""
    lab, mesh = store.lab, store.lab.mesh
    with ThreadPoolExecutor(2 * len(keys)) as clients:
        for number, (key, (writer, reader)) in enumerate(zip(keys, store.pairs(), strict=True)):
            others = [n for n in store.nodes if n not in (writer, reader)]
            old = store.ask_until_done("PUT", others[0], key)
            if not old.return_ns:
                break  # although nothing is cut off: the check of the majority says so
            this = Round(key, is_shut=number % 2 == 1, old=old)
            store.rounds.append(this)
            value = store.fresh()
            for other, called in product(others, (writer, reader)):
                mesh.cut(other, called, one_way=True)  # nobody fetches the value by himself
            senders = (writer, reader) if this.is_shut else (writer,)
            stops = [mesh.link(sender, n).black_hole(when=value) for sender in senders for n in others]
            this.new = clients.submit(store.ask, "PUT", writer, key, value)
            lab.until(lambda: store.own(reader, key) == value, at_most_s=1)  # noqa: B023 - used at once
            this.first = clients.submit(store.ask, "GET", reader, key)
            wait([this.first], timeout=ANSWERS_WITHIN_S)
            mesh.partition({writer, reader}, others)
            for node in (writer, reader):
                lab.pause(f"app-{node}")  # no way leads to them, not even one that passes the mesh by
            this.second = store.ask_until_done("GET", others[0], key, at_most_s=2 * SERVES_WITHIN_S)
            this.stopped = sum(stop.fired() for stop in stops)
            for node in (writer, reader):
                lab.resume(f"app-{node}")
            mesh.heal()
            if not this.second.return_ns:
                break  # the check of the majority says so
    for this in store.rounds:
        this.new, this.first = this.new.result(), this.first.result()


def let_them_sync(store):
    """Nobody asks for anything for a while. Then what each node has, while no node can ask another, and what a read finds after that."""
    lab, keys = store.lab, [*store.keys, *store.quiet]
    lab.until(lambda: False, at_most_s=SYNCED_WITHIN_S + SLACK_S)  # nor for /local, which must not be what sets it going
    with ExitStack() as stack:
        stack.callback(lab.mesh.partition().heal)
        for key in keys:
            store.local[key] = {n: store.own(n, key) for n in range(1, NODES + 1)}
    deadline = time.monotonic() + 2 * SERVES_WITHIN_S
    for key in keys:
        operation = store.ask_until_done("GET", lab.random.randrange(1, NODES + 1), key, deadline - time.monotonic())
        if not operation.return_ns:
            break
        store.newest[key] = operation.result


def operations_of(store):
    """Everything that was asked of the settings, by the load and by the run. A write without a 200 may have been done, whatever it was answered."""
    found = list(store.operations)
    for record in store.load.history:
        kind, result = ("write", None) if record.method == "PUT" else ("read", value_of(record.body))
        user, value, key = f"{record.user}@{record.replica}", record.context.get("value"), record.context["key"]
        found.append(Operation(user, kind, value, result, record.start_ns, record.end_ns if record.status == 200 else None, key))
    return [o for o in found if o.kind == "write" or o.return_ns]


def kinds_of(records):
    """What they were answered, the commonest first."""
    counts = Counter("no answer" if r.status is None else f"status {r.status}" for r in records)
    return ", ".join(f"{count} x {kind}" for kind, count in counts.most_common(3))


def require_no_stall(store):
    stall_s = store.load.history.longest_stall_s
    store.lab.require(stall_s < 1, f"the machine stood still for {stall_s:.1f} s")


def test_the_contract_holds(store, lab):
    """The examples of the contract work, 95% of the answers are 200 while all is well, and a node without a majority says so, within 3 s.

    Why: a node gives up too early, waits too long for what cannot come, or says something else than that it cannot make sure.
    """
    wanted = [None, None, "on", None, "off"]
    for operation, result in zip(store.examples, wanted, strict=False):  # they end with the first that is not answered
        assert operation.return_ns, f"before anything was broken, {operation} was not answered with 200"
        assert operation.kind == "write" or operation.result == result, f"before anything was broken: {operation}, expected {result}"
    calm = [r for r in store.load.history if r.end_ns < store.calm_end_ns]
    wrong = [r for r in calm if r.status != 200]
    if len(calm) < CALM_ANSWERS / 2 or len(wrong) > 0.05 * len(calm):
        lab.require_calm(store.load)
    assert len(calm) >= CALM_ANSWERS / 2, f"only {len(calm)} requests were answered while all was well"
    seen = f"{len(wrong)} of {len(calm)} answers were not 200: {kinds_of(wrong)}"
    lab.at_most(len(wrong) / len(calm), 0.05, seen, "other answers while all is well")
    cut_off = [r for r in store.load.history if r.replica in store.minority and store.cut_ns < r.start_ns and r.end_ns < store.split_end_ns]
    lab.require(len(cut_off) >= CUT_OFF_ANSWERS / 2, f"only {len(cut_off)} requests came to the nodes that were cut off")
    wrong = [r for r in cut_off if r.status not in (200, 503) or r.latency_s > ANSWERS_WITHIN_S + SLACK_S]  # a 200 is for the other checks
    if wrong:
        require_no_stall(store)
    latest_s = max(r.latency_s for r in cut_off)
    seen = f"{len(wrong)} of {len(cut_off)} requests to nodes without a majority had no 503 in time: {kinds_of(wrong)}, after up to {latest_s:.1f} s"
    lab.at_most(len(wrong) / len(cut_off), 0.25, seen, "late or other answers without a majority")


def test_every_setting_is_linearizable(store, lab):
    """For every setting there is one order of all its reads and writes that respects time and in which each read finds the last write.

    Why: a write was answered that the next reader's nodes need not have, or whose tag is not higher than that of all before it.
    """
    first_readers = {id(r.first) for r in store.rounds}  # the last check is about them
    operations = [o for o in operations_of(store) if id(o) not in first_readers]
    found = check_linearizable(operations, register())
    assert not found.violations, draw_violation(found.violations[0])
    lab.require(found.is_decided, str(found))
    lab.require(store.lost_power, f"the run did not come so far that the majority lost power: {store.load.missed} did not come")


def test_the_majority_goes_on(store, lab):
    """Whichever two nodes are cut off, the other three answer 200: all of them within 4 s, and from then on to at least 95% of the requests.

    Why: a node waits for one that cannot answer, instead of for a majority.
    """
    lab.require(store.cut_ns, f"the run did not come so far: {store.load.missed} did not come")
    for this, cut_off in zip(store.rounds, store.pairs(), strict=False):
        shown = " and ".join(f"app-{n}" for n in cut_off)
        seen = f"a read was not answered with 200 within {2 * SERVES_WITHIN_S:.0f} s after {shown} were cut off and stood still"
        assert this.second.return_ns, seen
    if not store.serving_ns:
        require_no_stall(store)
    assert store.serving_ns, f"not all of the three had taken a write {2 * SERVES_WITHIN_S:.0f} s after the other two were cut off"
    assert len(store.rounds) == ROUNDS, f"a write was not answered with 200 within {SERVES_WITHIN_S:.0f} s, although no node was cut off any more"
    asked = [r for r in store.load.history if r.replica in store.majority and store.serving_ns < r.start_ns and r.end_ns < store.split_end_ns]
    lab.require(len(asked) >= SPLIT_ANSWERS / 2, f"only {len(asked)} requests came to the majority")
    wrong = [r for r in asked if r.status != 200]
    if len(wrong) > 0.05 * len(asked):
        require_no_stall(store)
    seen = f"{len(wrong)} of {len(asked)} answers of the majority were not 200: {kinds_of(wrong)}"
    lab.at_most(len(wrong) / len(asked), 0.05, seen, "other answers of the majority")


def test_the_minority_acknowledges_nothing(store, lab):
    """A node that reaches no majority answers no write with 200.

    Why: it takes those that it can reach, or itself, for all there are.
    """
    lab.require(store.cut_ns, f"the run did not come so far: {store.load.missed} did not come")
    writes = [r for r in store.load.history if r.method == "PUT" and r.replica in store.minority and r.start_ns > store.cut_ns]
    writes = [r for r in writes if r.end_ns < store.healed_ns]
    done = [r for r in writes if r.status == 200]
    assert not done, f"{len(done)} of {len(writes)} writes to nodes that were cut off were answered with 200, the first by app-{done[0].replica}"
    lab.require(len(writes) >= 3, f"only {len(writes)} writes came to the nodes that were cut off")


def test_the_nodes_converge(store, lab):
    """When the network is whole and nobody asks for anything, every node has the newest value of every setting within 3 s.

    Why: what a node has missed comes to it only when somebody happens to read or write it.
    """
    lab.require(store.local, "the run did not come to its end")
    for key, values in store.local.items():
        newest = store.newest.get(key, "(no 200)")
        if set(values.values()) != {newest}:
            require_no_stall(store)
        shown = ", ".join(f"app-{n} {value}" for n, value in values.items())
        assert len(set(values.values())) == 1, f"setting {key}, {SYNCED_WITHIN_S + SLACK_S:g} s after the last request: {shown}"
        assert set(values.values()) == {newest}, f"setting {key}: a read says {newest}, the nodes have {shown}"


def test_no_reader_goes_back_in_time(store, lab):
    """When a read has found a value whose write was never finished, no later read finds an older one.

    Why: the first reader told what only few nodes had, and did not see to it that the next one finds it too.
    """
    for this in store.rounds:
        unfinished = replace(this.new, return_ns=None)  # whatever its node says of it: another check is about that
        before = [o for o in store.operations if o.key == this.key and o.kind == "write" and o is not this.new]
        operations = [*before, unfinished, *(o for o in (this.first, this.second) if o.return_ns)]
        found = check_linearizable(operations, register())
        assert not found.violations, draw_violation(found.violations[0])
        lab.require(found.is_decided, str(found))
    told = sum(r.second.return_ns is not None for r in store.rounds)
    lab.require(told >= ROUNDS / 2, f"only {told} of {ROUNDS} second readers were answered with 200")
    stopped = sum(r.is_half_way for r in store.rounds)
    lab.require(stopped >= ROUNDS / 2, f"only {stopped} of {ROUNDS} writes ended half-way: of the others no value was seen between nodes")
