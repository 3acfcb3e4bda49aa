"""Twelve clerks add lines to five invoices. Who is told to try again, does so a moment later with the same line; so does who has lost the answer.

Whose connection breaks waits until somebody else has had his turn: his late write then meets an invoice that has lines of others, and not his own.
"""

import itertools
import random

from locust import FastHttpUser, task

from runner.pacing import ending, read_plan

LOST = 0.2  # of the answers with 200, on their way to the clerk
BROKEN_WAIT_S = 6  # longer than a turn may take to go to another worker

plan = read_plan(seed=0, run="demo", invoices=["1", "2", "3", "4", "5"])
draw = random.Random(plan.seed)
numbers = itertools.count(1)


class Clerk(FastHttpUser):
    network_timeout = 20.0

    @task
    def add_line(self):
        invoice, line = draw.choice(plan.invoices), f"{plan.run}-{next(numbers)}"
        self.ask(invoice, line)
        if draw.random() < LOST:
            self.ask(invoice, line)

    def ask(self, invoice, line):
        context = {"invoice": invoice, "line": line}
        while not ending.is_set():
            answer = self.client.post(f"/invoices/{invoice}/lines", json={"line": line}, name="/invoices/[id]/lines", context=context)
            if answer.status_code == 200:
                break
            ending.wait(0.1 if answer.status_code else BROKEN_WAIT_S)
