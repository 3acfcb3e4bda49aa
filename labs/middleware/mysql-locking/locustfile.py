"""Thirty-two users move money, most of it between the same two accounts in both directions; one in ten sends a transfer twice."""

import itertools
import random

from locust import FastHttpUser, task
from locust.exception import StopUser

from runner.pacing import read_plan

plan = read_plan(seed=0, hot=[1, 2], cold=list(range(11, 51)), transfers=1200)
draw = random.Random(plan.seed)
numbers = itertools.count(1)


class Payer(FastHttpUser):
    network_timeout = 30.0

    @task
    def transfer_money(self):
        number = next(numbers)
        if number > plan.transfers:
            raise StopUser
        source, target = draw.sample(plan.hot if draw.random() < 0.8 else plan.cold, 2)
        transfer = {"id": f"t{plan.seed}-{number}", "from": source, "to": target, "amount": draw.randint(1, 20_000)}
        answer = self.send(transfer)
        if answer.status_code == 200 and draw.random() < 0.1:
            self.send(transfer)  # the client did not see the answer, and tries again

    def send(self, transfer):
        with self.client.post("/transfers", json=transfer, context=transfer, catch_response=True) as answer:
            if answer.status_code == 409:
                answer.success()
        return answer
