"""Some visitors, ten hits each, and an end."""

from locust import FastHttpUser, task
from locust.exception import StopUser

from runner.pacing import read_plan

plan = read_plan(hits=10)


class Visitor(FastHttpUser):
    network_timeout = 0.5

    @task
    def hit(self):
        for i in range(plan.hits):
            self.client.post("/hits", context={"i": i})
        raise StopUser
