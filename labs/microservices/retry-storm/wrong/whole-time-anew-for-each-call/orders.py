# bug: the shop passes on the number in the header and no deadline: each call to the provider gets all of that time, however much of it is over
"""The order service, by gRPC: asks the payment provider what an order costs, and has it charged."""

import asyncio
import os

import grpc
from calls import Budget, ask, connect
from google.protobuf.wrappers_pb2 import StringValue


class Orders:
    def __init__(self):
        self.channel, (self.ask_quote, self.charge) = connect("PAYMENTS_ADDRESS", "shop.Payments", "Quote", "Charge")
        self.budget = Budget()  # here and nowhere else: at two hops, retries multiply

    async def quote(self, key, within_s):
        return await ask(self.ask_quote, key, within_s, self.budget)

    async def order(self, key, within_s):
        await ask(self.ask_quote, key, within_s, self.budget)  # what it costs by now has to be known before it is charged
        # Tried once: UNAVAILABLE is also what grpc says of a connection that breaks in the middle, and the money may be taken then.
        return await ask(self.charge, key, within_s)


def handler(method):
    async def serve_call(request, context):
        timeout_ms, key = request.value.split(" ", 1)
        try:
            return StringValue(value=await method(key, int(timeout_ms) / 1000))
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())

    return grpc.unary_unary_rpc_method_handler(serve_call, StringValue.FromString, StringValue.SerializeToString)


async def main():
    orders, server = Orders(), grpc.aio.server()
    methods = {"Quote": handler(orders.quote), "Order": handler(orders.order)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Orders", methods)])
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
