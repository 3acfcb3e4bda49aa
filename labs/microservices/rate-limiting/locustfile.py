"""Seven tenants of one gateway, each with an API key and habits of its own. Arrivals are scheduled: a slow answer delays no later request."""

import itertools
import math
import time

import gevent
from locust import FastHttpUser, task

from runner.pacing import ending, read_plan, run_arrivals

plan = read_plan(keys={name: name for name in ("polite", "greedy", "edges", "spoofer", "obedient-1", "obedient-2", "obedient-3")})


class Tenant(FastHttpUser):
    abstract = True
    fixed_count = 1
    concurrency = 500  # connections: nobody waits for one
    network_timeout = 10.0

    def ask(self, name, intended_ns=None, **headers):
        context = {"tenant": name, "intended_ns": intended_ns}
        headers = {"X-API-Key": plan.keys[name], **headers}
        with self.client.get("/quote", headers=headers, context=context, catch_response=True) as answer:
            if answer.status_code == 429:
                answer.success()
        return answer


class Polite(Tenant):
    """8 requests a second, evenly: below the rate."""

    @task
    def arrive(self):
        run_arrivals((n / 8 for n in itertools.count()), lambda _, due_ns: self.ask("polite", due_ns))


class Greedy(Tenant):
    """150 requests a second: fifteen times the rate."""

    @task
    def arrive(self):
        run_arrivals((n / 150 for n in itertools.count()), lambda _, due_ns: self.ask("greedy", due_ns))


class Edges(Tenant):
    """15 at once right before every other full second, and 15 right after it."""

    @task
    def arrive(self):
        to_edge_s = math.ceil(time.time()) + 1 - time.time()
        bursts = (to_edge_s + 2 * n + side for n in itertools.count() for side in (-0.05, 0.05))
        run_arrivals((at_s for at_s in bursts for _ in range(15)), lambda _, due_ns: self.ask("edges", due_ns))


class Spoofer(Tenant):
    """30 requests a second, each with another forwarded address."""

    @task
    def arrive(self):
        def ask(n, due_ns):
            self.ask("spoofer", due_ns, **{"X-Forwarded-For": f"203.0.113.{n % 250}"})

        run_arrivals((n / 30 for n in itertools.count()), ask)


class Obedient(Tenant):
    """Asks until refused, waits as long as Retry-After says, and asks again."""

    fixed_count = 3
    numbers = itertools.count(1)

    def on_start(self):
        self.tenant = f"obedient-{next(self.numbers)}"
        self.waited = False

    @task
    def ask_once(self):
        headers = {"X-Waited": "1"} if self.waited else {}
        answer = self.ask(self.tenant, **headers)
        self.waited = answer.status_code == 429
        if self.waited:
            ending.wait(min(float(answer.headers.get("Retry-After") or 0), 5.0))
        gevent.sleep(0.02)
