"""Thirty-two users move money, most of it between the same two accounts in both directions; one in seven sends a transfer twice."""

import itertools
import random

import gevent
from locust import FastHttpUser, task
from locust.exception import StopUser

from runner.pacing import Barrier, read_plan

plan = read_plan(seed=0, run="demo", users=1, hot=[1, 2], cold=list(range(11, 51)), tight=[61, 62, 63], transfers=1200)
draw = random.Random(plan.seed)
numbers = itertools.count(1)
together = [Barrier(plan.users) for _ in plan.tight]


class Payer(FastHttpUser):
    network_timeout = 30.0

    def on_start(self):
        """One transfer, for which the connections are made; then three times all at once from an account that has enough for five of them."""
        self.send(next(numbers), *draw.sample(plan.cold, 2), 1)
        for account, barrier in zip(plan.tight, together, strict=True):
            barrier.wait()
            self.send(next(numbers), account, draw.choice(plan.cold), 10_000)

    @task
    def transfer_money(self):
        number = next(numbers)
        if number > plan.transfers:
            raise StopUser
        source, target = draw.sample(plan.hot if draw.random() < 0.8 else plan.cold, 2)
        amount = draw.randint(1, 20_000)
        dice = draw.random()
        if dice < 0.05:  # an impatient client: both at the same time
            gevent.joinall([gevent.spawn(self.send, number, source, target, amount) for _ in range(2)])
        elif self.send(number, source, target, amount) == 200 and dice < 0.15:
            self.send(number, source, target, amount)  # the client did not see the answer, and tries again

    def send(self, number, source, target, amount):
        transfer = {"id": f"{plan.run}-{number}", "from": source, "to": target, "amount": amount}
        with self.client.post("/transfers", json=transfer, context=transfer, catch_response=True) as answer:
            if answer.status_code in (403, 409):
                answer.success()
        return answer.status_code
