"""Fifteen clients, three at each node, read and write a few settings. Every write has a value of its own."""

import itertools
import random

from locust import FastHttpUser, task

from runner.pacing import ending, read_plan

plan = read_plan(seed=0, run="demo", keys=["a", "b", "c"], nodes=5)
draw = random.Random(plan.seed)
numbers, values = itertools.count(), itertools.count(1)


class Client(FastHttpUser):
    network_timeout = connection_timeout = 6.0

    def on_start(self):
        self.node = next(numbers) % plan.nodes + 1

    @task
    def read_or_write(self):
        key = draw.choice(plan.keys)
        context = {"replica": self.node, "key": key}
        if draw.random() < 0.5:
            value = f"{plan.run}-{next(values)}"
            answer = self.client.put(f"/settings/{key}", json={"value": value}, name="/settings/[key]", context={**context, "value": value})
        else:
            answer = self.client.get(f"/settings/{key}", name="/settings/[key]", context=context)
        ending.wait(0.05 if answer.status_code == 200 else 0.2)
