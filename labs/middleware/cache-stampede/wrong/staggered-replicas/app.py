# bug: each replica waits a little longer than a load takes, so that the one before has finished: until a load is slow
"""Product prices: a Redis cache in front of a catalog that takes 200 ms to answer."""

import asyncio
import json
import os
from collections import defaultdict

import httpx
import redis.asyncio as redis
from fastapi import FastAPI, HTTPException

FRESH_MS = 1000
TURN_S = 0.25 * (int(os.environ["REPLICA"]) - 1)
STALE_MS = 60_000  # so long it is kept, for the case that the catalog fails

app = FastAPI()
cache = redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
catalog = httpx.AsyncClient(base_url=os.environ["CATALOG_URL"], timeout=5)
locks = defaultdict(asyncio.Lock)


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
    if fresh_ms > 0:
        return product
    async with locks[key]:
        product, fresh_ms = await look_up(key)  # somebody may have loaded it while we waited
        if fresh_ms <= 0:
            await asyncio.sleep(TURN_S)
            product, fresh_ms = await look_up(key)  # or another replica, while it was its turn
        return product if fresh_ms > 0 else await fill(key, product)


async def fill(key: str, stale: dict | None) -> dict:
    """Load as the only filler of this key in this process."""
    try:
        product = await load(key)
    except httpx.HTTPError as error:
        if not stale:
            raise HTTPException(503, "the catalog does not answer") from error
        product = stale  # ask again when it has been shown for a while, not at once
    await keep(key, product)
    return product


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
