"""Each user is the lead of a team: asks for one day after the other, to the end of the year, and for reports on one morning and at the end."""

import itertools
import random

from locust import FastHttpUser, task
from locust.exception import StopUser

from runner.pacing import ending, read_plan

plan = read_plan(run=f"demo-{random.randrange(10**6)}", days=220, report_on=30)
numbers = itertools.count(1)
TRIES = 3


class Lead(FastHttpUser):
    network_timeout = 10.0

    def on_start(self):
        self.team = f"{plan.run}-{next(numbers)}"

    @task
    def live_a_year(self):
        for day in range(plan.days):
            if day == plan.report_on:
                self.ask_for_reports(day)
            if ending.is_set() or not any(self.work(day) for _ in range(TRIES)):
                raise StopUser
        self.ask_for_reports(plan.days)
        raise StopUser

    def work(self, day):
        context = {"team": self.team, "day": day}
        return self.client.post(f"/teams/{self.team}/days/{day}", name="/teams/[team]/days/[day]", context=context).status_code == 200

    def ask_for_reports(self, day):
        """On the morning of that day, of either replica."""
        for replica in (1, 2):
            context = {"team": self.team, "day": day, "replica": replica}
            self.client.get(f"/teams/{self.team}/report", name="/teams/[team]/report", context=context)
