"""The company's year: 760 experiments with sums at 40 looks, 80 with logs of events, ten that ask who gets what, and some that just began."""

import itertools
import random
from collections import deque
from functools import partial
from math import sqrt

from locust import FastHttpUser, events, task
from locust.exception import StopUser

from runner.pacing import read_plan

plan = read_plan(seed=0)

# Experiments with sums: kind, planned share, about how many new visitors come before a look, and how many experiments (why so many: the debrief).
# Effects are smaller where more visitors come, so no bound on the size of an effect or of a loss does instead of a test.
GROUPS = (
    ("placebo", 0.5, (100,), 300),
    ("placebo", 0.5, (400, 1600), 150),
    ("placebo", 0.1, (400, 1600), 150),
    ("effect", 0.5, (100, 400, 1600), 30),
    ("effect", 0.2, (400, 1600), 30),
    ("big", 0.5, (100, 400, 1600), 20),
    ("big", 0.2, (400, 1600), 20),
    ("broken", 0.5, (400, 1600, 1600), 30),
    ("broken", 0.2, (400, 1600, 1600), 30),
)
Z_AT_THE_END = {"effect": 5.0, "big": 12.0}  # the expected effect at the last look, in standard errors
LOST_BUYERS, LOST_OTHERS = 0.09, 0.22  # of an arm, with 400 visitors evenly split; with more visitors less, so that it is as hard to see
LOOKS = 40
# Logs: kind (without an effect, and with one), whether some users are regulars, how many. No one factor for all logs does instead of users.
LOG_GROUPS = (("habit", True, 40), ("habit", False, 20), ("button", True, 8), ("button", False, 12))
LOG_LOOKS = 2
ARMS = ("control", "treatment")
ONE = 4096  # rates are whole 4096ths

SHARES = (0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.2, 0.2, 0.2, 0.2)  # of the experiments that ask who gets what
ASSIGNED = 1000  # users, the same in all of them
CHUNK = 200


def draw_successes(draw, n, rate):
    """How many of n trials succeed, each with `rate` 4096ths: exactly binomial, one bit of the rate for all trials at a time."""
    won = 0
    for bit in range(12):
        coins = draw.getrandbits(n)
        won = won | coins if rate >> bit & 1 else won & coins
    return won.bit_count()


class Experiment:
    """An experiment of which the platform gets the sums."""

    def __init__(self, name, kind, share, sizes):
        self.name, self.kind, self.share = name, kind, share
        self.draw = draw = random.Random(f"{plan.seed}/{name}")  # its own, so that a seed gives the same whoever comes first
        self.visitors = round(draw.choice(sizes) * draw.uniform(0.75, 1.35))  # no round number tells what it is
        self.weight = self.visitors * share * (1 - share)  # what an effect's error goes by
        rate = draw.randint(820, 1430)  # 20% to 35% buy
        error = sqrt(rate * (ONE - rate) / (LOOKS * self.weight))
        self.rates = (rate, rate + round(error * Z_AT_THE_END.get(kind, 0) * draw.choice((-1, 1))))
        self.loser = draw.randrange(2)  # the arm that loses users, if it is broken
        self.users, self.buyers = [0, 0], [0, 0]

    @property
    def truth(self):
        """What is so: for a broken one that it is broken."""
        if self.kind == "broken":
            return "broken"
        return "undecided" if self.rates[0] == self.rates[1] else "better" if self.rates[1] > self.rates[0] else "worse"

    def look(self, number):
        """The sums at the next look."""
        arriving = self.draw.randint(self.visitors * 3 // 4, self.visitors * 5 // 4)
        treated = draw_successes(self.draw, arriving, round(self.share * ONE))
        for arm, users in enumerate((arriving - treated, treated)):
            buyers = draw_successes(self.draw, users, self.rates[arm])
            others = users - buyers
            if self.kind == "broken" and arm == self.loser:
                scale = ONE * sqrt(100 / self.weight)
                buyers -= draw_successes(self.draw, buyers, round(LOST_BUYERS * scale))
                others -= draw_successes(self.draw, others, round(LOST_OTHERS * scale))
            self.users[arm] += buyers + others
            self.buyers[arm] += buyers
        return self.body(number, self.users, self.buyers)

    def body(self, number, users, buyers):
        arms = ({"users": u, "buyers": b} for u, b in zip(users, buyers, strict=True))
        return {"experiment": self.name, "look": number, "of": LOOKS, "share": self.share, **dict(zip(ARMS, arms, strict=True))}


class Log:
    """An experiment of which the platform gets all events so far, as they arrived."""

    def __init__(self, name, kind, has_regulars):
        self.name, self.kind, self.has_regulars = name, kind, has_regulars
        self.draw = draw = random.Random(f"{plan.seed}/{name}")
        eager = draw.uniform(0.25, 0.35)  # of the users click a lot
        self.eager = draw.sample((eager, eager + 0.62 * (kind == "button")), 2)
        self.scale = draw.uniform(0.85, 1) if has_regulars else draw.uniform(0.25, 0.35)
        self.events, self.late = [], []
        self.numbers = itertools.count(self.draw.getrandbits(30))
        self.counts = {arm: {"users": 0, "views": 0, "clicks": 0} for arm in ARMS}

    @property
    def truth(self):
        """What is so."""
        return "undecided" if self.kind == "habit" else "better" if self.eager[1] > self.eager[0] else "worse"

    def look(self, number):
        """The log at the next look."""
        arrived, self.late = self.late, []
        for _ in range(self.draw.randint(150, 210)):
            arrived += self.visit(self.draw.randrange(2))
        self.draw.shuffle(arrived)
        self.events += arrived
        return {"experiment": self.name, "look": number, "of": LOG_LOOKS, "share": 0.5, "events": self.events}

    def visit(self, arm):
        """All events of a new user, some of them twice: the treatment's client sends a third of its clicks again."""
        draw, user = self.draw, f"u-{next(self.numbers):x}"
        views = draw.randint(30, 50) if self.has_regulars and draw.random() < 0.2 else draw.randint(1, 3)  # one in five is a regular
        chance = self.scale * (0.95 if draw.random() < self.eager[arm] else 0.05)
        clicks = sum(draw.random() < chance for _ in range(views))
        for what, n in (("users", 1), ("views", views), ("clicks", clicks)):
            self.counts[ARMS[arm]][what] += n
        arrived = [[f"e-{next(self.numbers):x}", user, ARMS[arm], kind] for kind in ["view"] * views + ["click"] * clicks]
        again = [event for event in arrived if draw.random() < (0.33 if arm and event[3] == "click" else 0.04)]
        self.late += again[::2]  # these come with the next look
        return arrived + again[1::2]


def new_id(draw, letter):
    return f"{letter}-{draw.getrandbits(48):012x}"


def watch_sums(user, batch):
    """All looks of some experiments, each look's in one request."""
    names, kinds = [e.name for e in batch], [e.kind for e in batch]
    truths, shares = [e.truth for e in batch], [e.share for e in batch]
    for number in range(1, LOOKS + 1):
        context = {"look": number, "experiments": names, "kinds": kinds, "truths": truths, "shares": shares}
        user.ask("/looks", {"looks": [e.look(number) for e in batch]}, context, partial(has_all, "verdicts", len(batch)))


def watch_logs(user, logs):
    """All looks of some logs, one request each."""
    for log in logs:
        for number in range(1, LOG_LOOKS + 1):
            body = log.look(number)
            counts = {arm: dict(counts) for arm, counts in log.counts.items()}
            context = {"look": number, "log": log.name, "kind": log.kind, "truth": log.truth, "counts": counts}
            user.ask("/logs", body, context, has_log_verdict)


def watch_newborns(user):
    """Experiments of which hardly anything is known."""
    draw = random.Random(f"{plan.seed}/newborns")
    for users, buyers in [((0, 0), (0, 0)), ((3, 0), (0, 0)), ((0, 2), (0, 0)), ((2, 3), (0, 0)), ((1, 1), (1, 1)), ((3, 2), (3, 2))]:
        born = Experiment(new_id(draw, "exp"), "effect", 0.5, (100,))
        user.ask("/looks", {"looks": [born.body(1, users, buyers)]}, {"newborn": f"{users} users, {buyers} buyers"}, is_undecided)
    view = [new_id(draw, "e"), new_id(draw, "u"), "treatment", "view"]
    for arrived in ([], [view]):
        body = {"experiment": new_id(draw, "exp"), "look": 1, "of": LOG_LOOKS, "share": 0.5, "events": arrived}
        user.ask("/logs", body, {"newborn": f"a log of {len(arrived)} events"}, is_undecided)


def ask_who_gets_what(user, experiments, people):
    """The variants of all users, twice, in other company the second time."""
    for name, share in experiments:
        draw = random.Random(f"{plan.seed}/{name}")
        order = draw.sample(people, ASSIGNED) + draw.sample(people, ASSIGNED)
        for i in range(0, len(order), CHUNK):
            body = {"experiment": name, "share": share, "users": order[i : i + CHUNK]}
            user.ask("/assignments", body, {"assigned": name, **body}, partial(has_all, "variants", CHUNK))


def has_all(key, n, answer):
    allowed = ARMS if key == "variants" else ("undecided", "better", "worse", "broken")
    return isinstance(answer.get(key), list) and len(answer[key]) == n and all(value in allowed for value in answer[key])


def has_log_verdict(answer):
    has_counts = all(isinstance(answer.get(arm), dict) and set(answer[arm]) >= {"users", "views", "clicks"} for arm in ARMS)
    return has_counts and has_all("verdicts", 1, {"verdicts": [answer.get("verdict")]})


def is_undecided(answer):
    return answer.get("verdicts", [answer.get("verdict")]) == ["undecided"]


def deal(draw, groups):
    """What each experiment is, in an order that tells nothing: neither does a name, nor whom it is asked with."""
    dealt = [group for *group, n in groups for _ in range(n)]
    draw.shuffle(dealt)
    return dealt


def draw_errands():
    """What the analysts have to do, in parts."""
    draw = random.Random(plan.seed)
    running = [Experiment(new_id(draw, "exp"), *group) for group in deal(draw, GROUPS)]
    logs = [Log(new_id(draw, "exp"), *group) for group in deal(draw, LOG_GROUPS)]
    people = [new_id(draw, "u") for _ in range(ASSIGNED)]
    planned = [(new_id(draw, "exp"), share) for share in draw.sample(SHARES, len(SHARES))]
    return [
        *(partial(watch_sums, batch=running[i::10]) for i in range(10)),
        *(partial(watch_logs, logs=logs[i::6]) for i in range(6)),
        *(partial(ask_who_gets_what, experiments=planned[i::3], people=people) for i in range(3)),
        watch_newborns,
    ]


errands = deque()


@events.test_start.add_listener
def begin(**_):
    errands.clear()
    errands.extend(draw_errands())


class Analyst(FastHttpUser):
    network_timeout = 10.0

    @task
    def run_errand(self):
        while errands:
            errands.popleft()(self)
        raise StopUser

    def ask(self, path, body, context, is_right):
        with self.client.post(path, json=body, name=path, context=context, catch_response=True) as answer:
            try:
                is_good = answer.status_code == 200 and is_right(said := answer.json())
            except (ValueError, AttributeError, TypeError, RecursionError):
                is_good = False
            if is_good:
                # The history keeps no body above 4 KiB, and an answer may say more than the contract asks for.
                context["said"] = {key: said[key] for key in ("variants", "verdicts", "verdict", *ARMS) if key in said}
            else:
                answer.failure(f"status {answer.status_code}: not as the contract says")
