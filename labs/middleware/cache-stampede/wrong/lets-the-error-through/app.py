# bug: lets the catalog's error through, so a reader of a product that was never loaded gets a 500
"""Product prices: a Redis cache in front of a catalog that takes 200 ms to answer."""

import asyncio
import json
import os
import uuid

import httpx
import redis.asyncio as redis
from fastapi import FastAPI

FRESH_MS = 1000
GRACE_MS = 250  # so long after that the last price will do while somebody loads the next one
STALE_MS = 60_000  # so long it is kept, for the case that the catalog fails
LOCK_MS = 2000  # ten loads: a filler that died holds its key no longer
POLL_S = 0.02

RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"

app = FastAPI()
cache = redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
catalog = httpx.AsyncClient(base_url=os.environ["CATALOG_URL"], timeout=5)


async def load(key: str) -> dict:
    answer = await catalog.get(f"/products/{key}")
    answer.raise_for_status()
    return answer.json()


async def look_up(key: str) -> tuple[dict | None, int]:
    """The cached product, and for how many ms it is fresh: by what Redis says is left of its life, so no replica's clock takes part."""
    async with cache.pipeline(transaction=False) as pipe:
        cached, left_ms = await pipe.get(f"product:{key}").pttl(f"product:{key}").execute()
    return (json.loads(cached) if cached else None), left_ms - STALE_MS


async def keep(key: str, product: dict) -> None:
    await cache.set(f"product:{key}", json.dumps(product), px=FRESH_MS + STALE_MS)


@app.get("/products/{key}")
async def read_product(key: str) -> dict:
    product, fresh_ms = await look_up(key)
    while fresh_ms <= 0:
        token = uuid.uuid4().hex
        if await cache.set(f"lock:{key}", token, nx=True, px=LOCK_MS):
            return await fill(key, token)
        if product and fresh_ms > -GRACE_MS:
            return product  # somebody is loading: the last price is good enough meanwhile
        await asyncio.sleep(POLL_S)
        product, fresh_ms = await look_up(key)
    return product


async def fill(key: str, token: str) -> dict:
    """Load as the only filler of this key in the fleet."""
    try:
        stale, fresh_ms = await look_up(key)
        if fresh_ms > 0:
            return stale  # somebody has loaded it since we looked
        product = await load(key)
        await keep(key, product)
    except httpx.HTTPError:
        if not stale:
            raise
        await keep(key, stale)  # ask again when it has been shown for a while, not at once
        product = stale
    finally:
        await cache.eval(RELEASE, 1, f"lock:{key}", token)  # only if it is still ours
    return product


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
