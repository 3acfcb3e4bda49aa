# bug: a budget of twelve retries for the life of a process: an outage uses up what is left of it, and blips after that reach a customer
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
    """What pays for retries: one costs a token, and there are twelve. In an outage they are soon gone, so retries end by themselves."""

    def __init__(self):
        self.tokens = 12

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


async def ask(method, key, within_s, budget=None):
    """The answer to a call, within the time that its caller has left. Retried where there is a budget for it, and only when nothing was done."""
    deadline, attempt = time.monotonic() + within_s, 0
    while True:
        try:
            return (await method(StringValue(value=key), timeout=deadline - time.monotonic())).value
        except grpc.aio.AioRpcError as error:
            pause_s = random.uniform(0, BACKOFF_S * 2**attempt)  # full jitter: those who failed together do not come back together
            can_retry = budget and error.code() == grpc.StatusCode.UNAVAILABLE and attempt < RETRIES
            if not can_retry or time.monotonic() + pause_s > deadline or not budget.spend():
                raise
            await asyncio.sleep(pause_s)
            attempt += 1
