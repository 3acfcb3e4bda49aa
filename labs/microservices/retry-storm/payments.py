"""The payment provider, by gRPC. The scenario decides whether it is well, has blips, is slow for some, or is out."""

import asyncio
from hashlib import sha256

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from runner.peer import Peer

WORK_S = 0.005
SLOW_S = 1.5
PART_S = 0.6  # leaves a hasty customer a part of his time
BLIP_EVERY = 20  # calls, of which the next quote is refused once
peer = Peer(mode="well", run="")
mill = {"since_blip": 0}
blipped = set()


def price_of(key):
    return f"{int(sha256(f'{peer.seed} {key}'.encode()).hexdigest()[:6], 16) % 9900 + 100}"


def is_customers(key):
    """Whether it is for a customer of the load: an app may ask on its own account, to see whether we are well."""
    return key.endswith(f"-{peer.state['run']}")


def slowness_s(key, step):
    """How long a slow call takes; 0 if it is none. Of 20 orders, 4 have a slow quote, 4 a slow charge, 5 a quote of 0.6 s and then a slow charge."""
    place = int(sha256(f"slow {peer.seed} {key}".encode()).hexdigest()[:6], 16) % 20
    if not key.startswith("o"):
        return SLOW_S if place < 5 else 0
    if step == "charge":
        return SLOW_S if 4 <= place < 13 else 0
    return SLOW_S if place < 4 else PART_S if place < 9 else 0


def is_blip(key):
    """Whether this quote is refused: about one in 20 calls, a quote alone and an order's in turn, and never the same key twice."""
    whose = "o" if len(blipped) % 2 else "q"  # an order's quote and a quote alone in turn
    if mill["since_blip"] < BLIP_EVERY or not key.startswith(whose) or not is_customers(key) or key in blipped:
        return False
    mill["since_blip"] = 0
    blipped.add(key)
    return True


async def serve_call(step, request, context):
    key, mode = request.value, peer.state["mode"]
    with peer.noted(step, key) as call:
        call["id"], call["mode"] = key, mode
        try:
            has_blips = mode.startswith("blips")
            mill["since_blip"] += has_blips
            if mode == "out" or (has_blips and step == "quote" and is_blip(key)):
                call["status"], call["blip"] = "UNAVAILABLE", has_blips
                await context.abort(grpc.StatusCode.UNAVAILABLE, "come back later: nothing was done")
            if step == "charge":
                call["charged"] = peer.count("charged")  # the money is taken first; to be cancelled afterwards changes nothing
            call["slow_s"] = slowness_s(key, step) if mode == "slow" and is_customers(key) and key not in blipped else 0
            await peer.sleep(call["slow_s"] or WORK_S)
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
