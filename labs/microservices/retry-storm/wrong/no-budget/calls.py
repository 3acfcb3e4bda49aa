# bug: tries again at one hop only, with back-off, and does so for every call however long the outage lasts
"""How a service calls the next one: the shop the order service, the order service the payment provider."""

import asyncio
import json
import os
import random
import time

import grpc
from google.protobuf.wrappers_pb2 import StringValue

BACKOFF_S = 0.02


def connect(addresses, service, *methods):
    """A channel to all of these addresses in turn, and its methods."""
    config = {"loadBalancingConfig": [{"round_robin": {}}]}
    options = [("grpc.service_config", json.dumps(config)), ("grpc.initial_reconnect_backoff_ms", 100)]
    channel = grpc.aio.insecure_channel(f"ipv4:{os.environ[addresses]}", options)
    return channel, [channel.unary_unary(f"/{service}/{m}", StringValue.SerializeToString, StringValue.FromString) for m in methods]


async def ask(method, key, within_s, retries=0):
    """The answer to a call, within the time that its caller has left. Retried only when nothing was done."""
    deadline, attempt = time.monotonic() + within_s, 0
    while True:
        try:
            return (await method(StringValue(value=key), timeout=deadline - time.monotonic())).value
        except grpc.aio.AioRpcError as error:
            pause_s = random.uniform(0, BACKOFF_S * 2**attempt)  # full jitter: those who failed together do not come back together
            can_retry = error.code() == grpc.StatusCode.UNAVAILABLE and attempt < retries
            if not can_retry or time.monotonic() + pause_s > deadline:
                raise
            await asyncio.sleep(pause_s)
            attempt += 1
