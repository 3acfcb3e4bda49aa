# bug: leaves Redis at its first error and never asks it again
"""A gateway that lets each API key through at 10 requests a second, with bursts of 10."""

import math
import os
import time

import redis.asyncio as redis
from fastapi import FastAPI, Header, Response
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

RATE = 10  # requests a second
BURST = 10
REDIS_TIMEOUT_S = 0.25
REPLICAS = 2

# GCRA (ITU-T I.371): the bucket is one number, the time at which it will be empty again. Atomic, and by the server's clock alone.
TAKE = """
local seconds, micros = unpack(redis.call('TIME'))
local now, step = seconds * 1000000 + micros, tonumber(ARGV[1])
local empty_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + step
local wait = empty_at - ARGV[2] * step - now
if wait > 0 then return wait end
redis.call('SET', KEYS[1], empty_at, 'PX', math.ceil((empty_at - now) / 1000))
return 0
"""

app = FastAPI()
# No retry, and said aloud: from_url has none anyway, but Redis(host=...) would try ten times more, with pauses, before it gives up.
store = redis.from_url(os.environ["REDIS_URL"], socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S, retry=Retry(NoBackoff(), 0))
take = store.register_script(TAKE)


class LocalBucket:
    """What decides when Redis has not answered: this replica's part of the rate."""

    def __init__(self) -> None:
        self.empty_at: dict[str, float] = {}
        self.is_alone = False

    def wait_s(self, key: str) -> float:
        step = REPLICAS / RATE
        empty_at = max(self.empty_at.get(key, 0.0), time.monotonic()) + step
        wait = empty_at - BURST / REPLICAS * step - time.monotonic()
        if wait <= 0:
            self.empty_at[key] = empty_at
        return max(wait, 0.0)


local = LocalBucket()


async def wait_s(key: str) -> float:
    """0 when the request may pass, else the seconds until the next one may."""
    if not local.is_alone:
        try:
            return await take(keys=[f"limit:{key}"], args=[1_000_000 // RATE, BURST]) / 1e6
        except redis.RedisError:
            local.is_alone = True
    return local.wait_s(key)


@app.get("/quote")
async def quote(response: Response, x_api_key: str = Header()) -> dict:
    wait = await wait_s(x_api_key)
    if wait:
        response.status_code = 429
        response.headers["Retry-After"] = str(math.ceil(wait))
        return {"detail": "too many requests"}
    return {"quote": 42}


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
