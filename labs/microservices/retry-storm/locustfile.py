"""Customers come at a steady rate, whatever becomes of those before them. Each says for how long it will wait: most are hasty, some patient."""

import itertools
import random

from locust import FastHttpUser, task

from runner.pacing import read_plan, run_arrivals

plan = read_plan(seed=0, run="demo", rate=60, hasty_ms=[600, 1000], patient_ms=[6000, 8000])
draw = random.Random(plan.seed)


class Customers(FastHttpUser):
    fixed_count = 1
    concurrency = 800  # connections: nobody waits for one
    network_timeout = 20.0

    @task
    def arrive(self):
        run_arrivals((n / plan.rate for n in itertools.count()), self.ask)

    def ask(self, n, intended_ns):
        is_order, is_patient = draw.random() < 0.5, draw.random() < 0.33
        timeout_ms = draw.randint(*(plan.patient_ms if is_patient else plan.hasty_ms))
        key = f"{'o' if is_order else 'q'}{n}-{plan.run}"
        how = {
            "headers": {"X-Timeout-Ms": str(timeout_ms)},
            "context": {"id": key, "habit": "patient" if is_patient else "hasty", "timeout_ms": timeout_ms, "intended_ns": intended_ns},
        }
        if is_order:
            self.client.post(f"/orders/{key}", name="/orders/[id]", **how)
        else:
            self.client.get(f"/quotes/{key}", name="/quotes/[id]", **how)
