"""Two requests a user."""

from locust import FastHttpUser, task
from locust.exception import StopUser


class Caller(FastHttpUser):
    @task
    def call(self):
        for _ in range(2):
            self.client.get("/")
        raise StopUser
