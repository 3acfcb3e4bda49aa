"""A gateway that lets each API key through at 10 requests a second, with bursts of 10."""

import os
import time

import redis.asyncio as redis
from fastapi import FastAPI, Header, Response

RATE = 10  # requests a second

app = FastAPI()
store = redis.from_url(os.environ["REDIS_URL"])


async def may_pass(key: str) -> bool:
    window = f"limit:{key}:{int(time.time())}"
    count = await store.incr(window)
    await store.expire(window, 5)
    return count <= RATE


@app.get("/quote")
async def quote(response: Response, x_api_key: str = Header()) -> dict:
    if not await may_pass(x_api_key):
        response.status_code = 429
        return {"detail": "too many requests"}
    return {"quote": 42}


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
