# bug: a call that was not answered in time is tried again, charges too, without limit by the budget
"""How a service calls the next one: the shop the order service, the order service the payment provider."""

import asyncio
import json
import os
import random
import time

import grpc
from google.protobuf.wrappers_pb2 import StringValue

RETRIES = 2
BACKOFF_S = 0.02


class Budget:
    """What pays for retries: one costs a token, and a call that goes well earns a tenth. In an outage nothing earns, so retries end by themselves."""

    MOST = 5

    def __init__(self):
        self.tokens = self.MOST

    def earn(self):
        self.tokens = min(self.tokens + 0.1, self.MOST)

    def spend(self):
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def connect(addresses, service, *methods):
    """A channel to all of these addresses in turn, and its methods."""
    config = {"loadBalancingConfig": [{"round_robin": {}}]}
    options = [("grpc.service_config", json.dumps(config)), ("grpc.initial_reconnect_backoff_ms", 100)]
    channel = grpc.aio.insecure_channel(f"ipv4:{os.environ[addresses]}", options)
    return channel, [channel.unary_unary(f"/{service}/{m}", StringValue.SerializeToString, StringValue.FromString) for m in methods]


MAY_PASS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def ask(method, key, within_s, budget=None):
    """The answer to a call, within the time that its caller has left. Retried where there is a budget for it, and when it may help."""
    deadline, attempt = time.monotonic() + within_s, 0
    while True:
        timeout_s = (deadline - time.monotonic()) / (RETRIES + 1 - attempt if budget else 1)  # each try gets its share
        try:
            answer = await method(StringValue(value=key), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            pause_s = random.uniform(0, BACKOFF_S * 2**attempt)  # full jitter: those who failed together do not come back together
            can_retry = budget and error.code() in MAY_PASS and attempt < RETRIES
            if not can_retry or time.monotonic() + pause_s > deadline:
                raise
            if error.code() == grpc.StatusCode.UNAVAILABLE and not budget.spend():
                raise
            await asyncio.sleep(pause_s)
            attempt += 1
        else:
            if budget:
                budget.earn()
            return answer.value
