"""Eight gates report what they read, and Rotterdam sends long lists on three connections; after a while a laptop takes Rotterdam's place."""

import itertools
import random
import time

from locust import FastHttpUser, constant, events, task
from locust.exception import StopUser
from tags import draw_list, find_mistake

from runner.pacing import read_plan

# The laptop comes after `before` lists of the gates; it ends when they have had `together` more, or after `at_most_s`. Under plain Locust it stays.
plan = read_plan(seed=0, kinds=["laptop-1", "laptop-2", "laptop-3"], long=[4000, 5000], pause_s=0.03, before=300, together=10**9, at_most_s=10**9)
BEFORE_AT_MOST_S = 3.0


class Day:
    """How far the gates have come."""

    def __init__(self):
        self.began_s = time.monotonic()
        self.answered = 0  # lists of the gates; counted anew from the laptop's first one on
        self.laptop_since_s = None

    def has_laptop(self):
        """Asked before each long list: whether it is the laptop's."""
        if self.laptop_since_s is None and (self.answered >= plan.before or time.monotonic() > self.began_s + BEFORE_AT_MOST_S):
            self.answered = 0
            self.laptop_since_s = time.monotonic()
        return self.laptop_since_s is not None

    @property
    def is_over(self):
        if self.laptop_since_s is None:
            return False
        return self.answered >= plan.together or time.monotonic() > self.laptop_since_s + plan.at_most_s


day = None


@events.test_start.add_listener
def begin(**_):
    global day
    day = Day()


class Sender(FastHttpUser):
    abstract = True
    network_timeout = 20.0

    def on_start(self):
        self.number = next(self.numbers)
        self.draw = random.Random(f"{plan.seed}/{type(self).__name__}/{self.number}")

    def send(self, sender, kind, size):
        """One list, and whether the answer to it is right."""
        tags, right = draw_list(self.draw, kind, size)
        context = {"sender": sender, "kind": kind, "size": size}
        with self.client.post("/reads", json={"tags": tags}, name=f"/reads ({sender})", context=context, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return
            try:
                said = answer.json()
            except (ValueError, RecursionError):
                said = None
            if mistake := find_mistake(said, right):
                context["mistake"] = mistake
                answer.failure(mistake)


class Gate(Sender):
    fixed_count = 8
    numbers = itertools.count()
    wait_time = constant(plan.pause_s)

    @task
    def report(self):
        if day.is_over:
            raise StopUser
        self.send("gate", "ordinary", self.draw.randint(200, 800))
        day.answered += 1


class LongSender(Sender):
    """Rotterdam, and then the laptop."""

    fixed_count = 3
    numbers = itertools.count()
    wait_time = constant(0.15)

    @task
    def send_one(self):
        if day.is_over:
            raise StopUser
        size = self.draw.randint(*plan.long)
        if day.has_laptop():
            self.send("laptop", plan.kinds[self.number % len(plan.kinds)], size)
        else:
            self.send("rotterdam", "ordinary", size)
