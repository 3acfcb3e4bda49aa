"""How a service calls the next one: the shop the order service, the order service the payment provider."""

import json
import os

import grpc
from google.protobuf.wrappers_pb2 import StringValue

TIMEOUT_S = 0.5
RETRIES = 3


def connect(addresses, service, *methods):
    """A channel to all of these addresses in turn, and its methods."""
    config = {"loadBalancingConfig": [{"round_robin": {}}]}
    options = [("grpc.service_config", json.dumps(config)), ("grpc.initial_reconnect_backoff_ms", 100)]
    channel = grpc.aio.insecure_channel(f"ipv4:{os.environ[addresses]}", options)
    return channel, [channel.unary_unary(f"/{service}/{m}", StringValue.SerializeToString, StringValue.FromString) for m in methods]


async def ask(method, key):
    """The answer to a call."""
    retries_left = RETRIES
    while True:
        try:
            return (await method(StringValue(value=key), timeout=TIMEOUT_S)).value
        except grpc.aio.AioRpcError:
            if not retries_left:
                raise
            retries_left -= 1
