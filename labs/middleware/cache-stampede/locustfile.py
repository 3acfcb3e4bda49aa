"""Forty readers: nine in ten requests are for a hot product, the rest for one of many cold ones."""

import random

from locust import FastHttpUser, between, task

from runner.pacing import read_plan

plan = read_plan(seed=0, hot=["1", "2", "3"], cold=[str(n) for n in range(100, 300)])
draw = random.Random(plan.seed)


class Reader(FastHttpUser):
    wait_time = between(0.08, 0.16)
    network_timeout = 10.0

    @task
    def read_product(self):
        is_hot = draw.random() < 0.9
        key = draw.choice(plan.hot if is_hot else plan.cold)
        self.client.get(f"/products/{key}", name="/products/[id]", context={"key": key, "hot": is_hot})
