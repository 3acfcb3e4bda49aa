"""Ten clerks post credits, three a second each, for 300 accounts. A clerk who is not sure posts a credit once more."""

import random

from locust import FastHttpUser, constant_pacing, task

from runner.pacing import read_plan

plan = read_plan(seed=0, run="demo", again=0.08)
draw = random.Random(f"clerks {plan.seed}")  # a stream of its own: the scenario draws ids and accounts from the same ranges
accounts = [f"acc-{draw.randrange(10**12)}" for _ in range(300)]


class Clerk(FastHttpUser):
    wait_time = constant_pacing(0.3)
    network_timeout = 20.0

    @task
    def post_credit(self):
        credit = {"id": f"{plan.run}-{draw.randrange(10**12)}", "account": draw.choice(accounts), "amount": draw.randrange(1, 10_000)}
        for _ in range(2 if draw.random() < plan.again else 1):
            self.client.post("/credits", json=credit, context={"credit": credit})
