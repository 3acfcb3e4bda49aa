"""Desks that send the requests of one race at the same moment, most to different replicas, and then those of the next."""

import itertools
import random

import gevent
from locust import FastHttpUser, task
from locust.exception import StopUser

from runner.pacing import read_plan

plan = read_plan(seed=0, desks=[])
draw = random.Random(plan.seed)
numbers = itertools.count()
PLACES = [(1, 2), (1, 2), (2, 1), (1, 1), (2, 2)]


def invent_races():
    """Without a plan: two bookings of a room that overlap, again and again."""
    while True:
        room, start = draw.randint(1, 3), draw.randrange(10**9)
        yield [{"id": f"demo-{room}-{start}-{n}", "room": room, "from": start + n, "to": start + 60} for n in range(2)]


class Desk(FastHttpUser):
    network_timeout = 20.0

    def on_start(self):
        self.races = iter(plan.desks[next(numbers)]) if plan.desks else invent_races()

    @task
    def run_race(self):
        race = next(self.races, None)
        if race is None:
            raise StopUser
        replicas = (*draw.choice(PLACES), draw.choice((1, 2))) if len(race) > 1 else (None,)
        gevent.joinall([gevent.spawn(self.send, request, request.get("replica", replica)) for request, replica in zip(race, replicas, strict=False)])

    def send(self, request, replica):
        if "shift" in request:
            path, name, body = f"/shifts/{request['shift']}/leave", "/shifts/[id]/leave", {"doctor": request["doctor"]}
        else:
            path, name = f"/rooms/{request['room']}/bookings", "/rooms/[id]/bookings"
            body = {key: request[key] for key in ("id", "from", "to")}
        with self.client.post(path, json=body, name=name, context={**request, "replica": replica}, catch_response=True) as answer:
            if answer.status_code == 409:
                answer.success()
