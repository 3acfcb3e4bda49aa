"""The payment provider, by gRPC. The scenario decides whether it is well, has blips, is slow for some orders, or is out."""

import asyncio
from hashlib import sha256

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from runner.peer import Peer

WORK_S = 0.005
SLOW_S = 1.5
BLIP_EVERY = 20  # calls, of which the next quote is refused once
peer = Peer(mode="well")
mill = {"since_blip": 0}
blipped = set()


def price_of(key):
    return f"{int(sha256(f'{peer.seed} {key}'.encode()).hexdigest()[:6], 16) % 9900 + 100}"


def is_slow(key, step):
    """One order in five has a slow quote, another one a slow charge; of the other quotes one in four is slow."""
    place = int(sha256(f"slow {peer.seed} {key}".encode()).hexdigest()[:6], 16) % 20
    if not key.startswith("o"):
        return place < 5
    return place < 4 if step == "quote" else 4 <= place < 8


def is_blip(key):
    """Whether this quote is refused: about one in 20 calls, and never the same key twice."""
    if key.startswith("o") or mill["since_blip"] < BLIP_EVERY or key in blipped:
        return False
    mill["since_blip"] = 0
    blipped.add(key)
    return True


async def serve_call(step, request, context):
    key, mode = request.value, peer.state["mode"]
    with peer.noted(step, key) as call:
        call["id"], call["mode"] = key, mode
        try:
            mill["since_blip"] += mode == "blips"
            if mode == "out" or (mode == "blips" and step == "quote" and is_blip(key)):
                call["status"], call["blip"] = "UNAVAILABLE", mode == "blips"
                await context.abort(grpc.StatusCode.UNAVAILABLE, "come back later: nothing was done")
            if step == "charge":
                call["charged"] = peer.count("charged")  # the money is taken first; to be cancelled afterwards changes nothing
            call["slow"] = mode == "slow" and key not in blipped and is_slow(key, step)
            await peer.sleep(SLOW_S if call["slow"] else WORK_S)
            call["status"], call["price"] = "OK", price_of(key)
            return StringValue(value=call["price"])
        except asyncio.CancelledError:
            call["status"] = "CANCELLED"
            raise


async def serve(address):
    def handler(step):
        async def serve_step(request, context):
            return await serve_call(step, request, context)

        return grpc.unary_unary_rpc_method_handler(serve_step, StringValue.FromString, StringValue.SerializeToString)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Payments", {"Quote": handler("quote"), "Charge": handler("charge")})])
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


peer.run(serve)
