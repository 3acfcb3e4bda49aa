"""Some visitors, ten hits each, and an end; who gets no answer goes home."""

from locust import FastHttpUser, task
from locust.exception import StopUser

from runner.pacing import read_plan

plan = read_plan(hits=10)


class Visitor(FastHttpUser):
    network_timeout = 10.0

    @task
    def hit(self):
        for i in range(plan.hits):
            if self.client.post("/hits", context={"i": i}).status_code == 0:
                break
        raise StopUser
