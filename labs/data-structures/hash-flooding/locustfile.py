"""Eight gates that report what they read; when they have done so for a while, a laptop joins them on three connections."""

import itertools
import random
import time

from gevent.event import Event
from locust import FastHttpUser, constant, events, task
from locust.exception import StopUser
from tags import draw_list, find_mistake

from runner.pacing import read_plan

# The laptop comes after `alone` lists of the gates; it ends when they have had `together` more, or after `at_most_s`. Under plain Locust it stays.
plan = read_plan(seed=0, kinds=["laptop-1", "laptop-2", "laptop-3"], length=4000, alone=300, together=10**9, at_most_s=10**9)
ALONE_AT_MOST_S = 8.0


class Day:
    """How far the gates have come."""

    def __init__(self):
        self.answered = 0
        self.laptop = Event()
        self.laptop_since_s = None

    def note_answer(self):
        self.answered += 1
        if self.answered >= plan.alone:
            self.laptop.set()

    def await_laptop(self):
        self.laptop.wait(ALONE_AT_MOST_S)
        if self.laptop_since_s is None:
            self.laptop_since_s = time.monotonic()

    @property
    def is_over(self):
        if self.laptop_since_s is None:
            return False
        return self.answered >= plan.alone + plan.together or time.monotonic() > self.laptop_since_s + plan.at_most_s


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

    def send(self, kind, size):
        """One list, and whether the answer to it is right."""
        tags, right = draw_list(self.draw, kind, size)
        sender = type(self).__name__.lower()
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
    wait_time = constant(0.03)

    @task
    def report(self):
        if day.is_over:
            raise StopUser
        self.send("ordinary", self.draw.randint(200, 800))
        day.note_answer()


class Laptop(Sender):
    fixed_count = 3
    numbers = itertools.count()
    wait_time = constant(0.15)

    def on_start(self):
        super().on_start()
        day.await_laptop()

    @task
    def send_one(self):
        if day.is_over:
            raise StopUser
        self.send(plan.kinds[self.number % len(plan.kinds)], plan.length)
