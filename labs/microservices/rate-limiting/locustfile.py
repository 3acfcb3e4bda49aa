"""Eleven tenants of one gateway, each with an API key and habits of its own. Arrivals are scheduled: a slow answer delays no later request."""

import itertools
import math
import re
import time

import gevent
from locust import FastHttpUser, task

from runner.pacing import ending, read_plan, run_arrivals

NAMES = ("polite", "greedy", "late", "edges", "even-halves", "odd-halves", "window-breaker", "spoofer", "obedient-1", "obedient-2", "obedient-3")
plan = read_plan(keys={name: name for name in NAMES}, phase_s=0.3, late_s=6.5)


class Tenant(FastHttpUser):
    abstract = True
    fixed_count = 1
    concurrency = 500  # connections: nobody waits for one
    network_timeout = 10.0

    def ask(self, name, intended_ns=None, replica=None, **headers):
        context = {"tenant": name, "intended_ns": intended_ns, "replica": replica}
        headers = {"X-API-Key": plan.keys[name], **headers}
        with self.client.get("/quote", headers=headers, context=context, catch_response=True) as answer:
            if answer.status_code == 429:
                answer.success()
        return answer

    def follow(self, name, offsets_s, replica=None):
        """Ask at each of these times, from now."""
        run_arrivals(offsets_s, lambda _, due_ns: self.ask(name, due_ns, replica))


class Polite(Tenant):
    """8 requests a second, evenly: below the rate."""

    @task
    def arrive(self):
        self.follow("polite", (n / 8 for n in itertools.count()))


class Greedy(Tenant):
    """80 requests a second: eight times the rate. The balancer sends all of them to replica 1."""

    @task
    def arrive(self):
        self.follow("greedy", (n / 80 for n in itertools.count()), replica=1)


class Late(Tenant):
    """Nothing for a while, then 60 requests a second."""

    @task
    def arrive(self):
        self.follow("late", (plan.late_s + n / 60 for n in itertools.count()))


class Edges(Tenant):
    """15 at once right before every other full second, and 15 right after it."""

    @task
    def arrive(self):
        to_edge_s = math.ceil(time.time()) + 1 - time.time()
        self.follow("edges", (to_edge_s + 2 * n + side for n in itertools.count() for side in (-0.05, 0.05) for _ in range(15)))


class EvenHalves(Tenant):
    """12 at once, and 12 half a second later, every two seconds: with the other one, wherever a window has its edge, it lies between."""

    name, shift_s = "even-halves", 0.0

    @task
    def arrive(self):
        start_s = plan.phase_s + self.shift_s
        self.follow(self.name, (start_s + 2 * n + half for n in itertools.count() for half in (0.0, 0.5) for _ in range(12)))


class OddHalves(EvenHalves):
    name, shift_s = "odd-halves", 0.5


class WindowBreaker(Tenant):
    """One request, 12 at once 0.9 s later and 12 more after another 0.2 s: for windows that begin with their first request."""

    @task
    def arrive(self):
        self.follow("window-breaker", (3 * n + at_s for n in itertools.count() for at_s in [0.0] + [0.9] * 12 + [1.1] * 12))


class Spoofer(Tenant):
    """20 requests a second, each with another forwarded address."""

    @task
    def arrive(self):
        def ask(n, due_ns):
            self.ask("spoofer", due_ns, **{"X-Forwarded-For": f"203.0.113.{n % 250}"})

        run_arrivals((n / 20 for n in itertools.count()), ask)


class Obedient(Tenant):
    """Asks until refused, waits as long as Retry-After says, and asks again."""

    fixed_count = 3
    numbers = itertools.count(1)

    def on_start(self):
        self.tenant = f"obedient-{next(self.numbers)}"

    @task
    def ask_once(self):
        answer = self.ask(self.tenant)
        if answer.status_code == 429:
            wait = str(answer.headers.get("Retry-After") or "")  # a header that comes twice is a list
            ending.wait(min(int(wait), 5) if re.fullmatch("[0-9]{1,9}", wait) else 1)
        gevent.sleep(0.02)  # how fast this client asks
