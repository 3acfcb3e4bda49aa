"""How a service calls the next one: the shop the order service, the order service the payment provider."""

import asyncio
import json
import os
import random

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


async def ask(method, key, within_s=None, budget=None):
    """The answer to a call, each try within the customer's time. Retried where there is a budget for it, and only when nothing was done."""
    attempt = 0
    while True:
        try:
            answer = await method(StringValue(value=key), timeout=within_s)
        except grpc.aio.AioRpcError as error:
            pause_s = random.uniform(0, BACKOFF_S * 2**attempt)  # full jitter: those who failed together do not come back together
            can_retry = budget and error.code() == grpc.StatusCode.UNAVAILABLE and attempt < RETRIES
            if not can_retry or not budget.spend():
                raise
            await asyncio.sleep(pause_s)
            attempt += 1
        else:
            if budget:
                budget.earn()
            return answer.value
