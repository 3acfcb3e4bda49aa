"""Twenty shops post the events of their orders, each event only after the one before it was accepted; two hot orders get a third of them."""

import itertools
import random

import gevent
from locust import FastHttpUser, task
from locust.exception import StopUser

from runner.pacing import read_plan

plan = read_plan(seed=0, hot=["h1", "h2"], orders=[f"o{n}" for n in range(80)], events=5, hot_events=80)
draw = random.Random(plan.seed)
numbers = itertools.count()


class Shop(FastHttpUser):
    """The first two users own a hot order each; the others share the rest out."""

    network_timeout = 30.0

    def on_start(self):
        number = next(numbers)
        if number < len(plan.hot):
            self.todo = [(plan.hot[number], version) for version in range(1, plan.hot_events + 1)]
            return
        mine = plan.orders[number - len(plan.hot) :: self.environment.runner.target_user_count - len(plan.hot)]
        turns = [order for order in mine for _ in range(plan.events)]
        draw.shuffle(turns)
        count = dict.fromkeys(mine, 0)
        self.todo = []
        for order in turns:
            count[order] += 1
            self.todo.append((order, count[order]))

    @task
    def post_event(self):
        if not self.todo:
            raise StopUser
        if self.is_accepted(*self.todo[0]):
            del self.todo[0]  # the next event may only follow an accepted one
        else:
            gevent.sleep(0.05)  # without it one short refusal would be most of the run's answers

    def is_accepted(self, order, version):
        event = {"version": version, "type": "changed"}
        context = {"order": order, "version": version}
        with self.client.post(f"/orders/{order}/events", json=event, name="/orders/[id]/events", context=context, catch_response=True) as answer:
            if answer.status_code not in (200, 202):
                answer.failure(f"status {answer.status_code}")
        return answer.status_code in (200, 202)
