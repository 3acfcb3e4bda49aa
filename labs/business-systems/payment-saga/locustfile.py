"""Ten shoppers order something twice a second. Some click twice, some come back, some leave at the first trouble and are never seen again."""

import random

import gevent
from locust import FastHttpUser, constant_pacing, task
from locust.exception import StopUser

from runner.pacing import ending, read_plan

AGAIN_AFTER_S = 0.25
run = f"demo-{random.randrange(10**9)}"
demo = [{"key": f"{run}-{n}", "customer": f"c{n % 40}", "item": f"i{n % 9}", "amount": 100 + n, "habit": "", "other": {}} for n in range(10_000)]
plan = read_plan(seed=0, orders=demo)
orders = iter(plan.orders)


class Shopper(FastHttpUser):
    wait_time = constant_pacing(0.5)
    network_timeout = 8.0

    @task
    def order(self):
        order = next(orders, None)
        if order is None:
            raise StopUser
        habit = order["habit"]
        if habit == "clicks twice":
            gevent.joinall([gevent.spawn(self.send, order) for _ in range(2)])
        status = self.send(order)
        while habit != "leaves" and (status in (0, 202) or status >= 500) and not ending.wait(AGAIN_AFTER_S):
            status = self.send(order)
        if habit == "comes back":
            self.send(order)
        if habit == "changes the order" and status == 200:
            self.send(order, other=order["other"])

    def send(self, order, other=None):
        body = {part: order[part] for part in ("customer", "item", "amount")} | (other or {})
        context = {"key": order["key"], "other": bool(other)}
        headers = {"Idempotency-Key": order["key"]}
        with self.client.post("/orders", json=body, headers=headers, context=context, catch_response=True) as answer:
            if answer.status_code == 422 and other:
                answer.success()
            return answer.status_code
