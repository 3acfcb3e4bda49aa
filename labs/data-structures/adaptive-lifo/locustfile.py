"""Customers come by a timetable, whatever becomes of those before them. Twice many come in a moment; between that far too many come for a while."""

import itertools
import random

from locust import FastHttpUser, task
from locust.exception import StopUser

from runner.pacing import read_plan, run_arrivals

DAY = [["calm", 36, 1.4], ["burst", 28, 0], ["calm again", 36, 1.4], ["rush", 125, 4.5]]
DAY += [["evening", 24, 3.3], ["second burst", 150, 0.2], ["night", 42, 1.0], ["small hours", 14, 2.1]]
plan = read_plan(seed=0, run="demo", patience_ms=[1000, 1200], phases=DAY, is_one_day=False)
draw = random.Random(plan.seed)
numbers = itertools.count()


def draw_visits():
    """When each customer comes, in seconds, and in which phase. A phase is so many a second for so many seconds; without seconds, so many at once."""
    start_s = 0.0
    for phase, rate, seconds in plan.phases:
        if not seconds:
            yield from [(start_s, phase)] * rate
        for n in range(round(rate * seconds)):
            yield start_s + (n + draw.random()) / rate, phase
        start_s += seconds


class Customers(FastHttpUser):
    fixed_count = 1
    concurrency = 1000  # connections: nobody waits for one
    network_timeout = 3.0

    @task
    def live_a_day(self):
        visits = list(draw_visits())
        run_arrivals((at_s for at_s, _ in visits), lambda n, due_ns: self.ask(visits[n][1], due_ns))
        if plan.is_one_day:
            raise StopUser

    def ask(self, phase, intended_ns):
        key, timeout_ms = f"{next(numbers)}-{plan.run}", draw.choice(plan.patience_ms)
        context = {"id": key, "phase": phase, "timeout_ms": timeout_ms, "intended_ns": intended_ns}
        self.client.get(f"/fares/{key}", name="/fares/[id]", headers={"X-Timeout-Ms": str(timeout_ms)}, context=context)
