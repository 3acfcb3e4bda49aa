"""The shop's front: HTTP in, gRPC to the order service. A header of each request says for how long its customer will wait."""

import asyncio
from contextlib import asynccontextmanager

import grpc
from calls import ask, connect
from fastapi import FastAPI, Header, HTTPException

STATUS = {grpc.StatusCode.UNAVAILABLE: 503, grpc.StatusCode.DEADLINE_EXCEEDED: 504}


@asynccontextmanager
async def open_channel(app):
    app.channel, (app.quote, app.order) = connect("ORDERS_ADDRESSES", "shop.Orders", "Quote", "Order")
    yield


app = FastAPI(lifespan=open_channel)


async def ask_orders(method, key, timeout_ms):
    try:
        return {"id": key, "price": await ask(method, key, timeout_ms / 1000)}
    except grpc.aio.AioRpcError as error:
        raise HTTPException(STATUS.get(error.code(), 504), error.details()) from error


@app.get("/quotes/{key}")
async def quote(key: str, x_timeout_ms: int = Header(1000)):
    return await ask_orders(app.quote, key, x_timeout_ms)


@app.post("/orders/{key}")
async def order(key: str, x_timeout_ms: int = Header(1000)):
    return await ask_orders(app.order, key, x_timeout_ms)


@app.get("/healthz")
async def healthz():
    await asyncio.wait_for(app.channel.channel_ready(), 1)
    return {"ok": True}
