# bug: refreshes early by chance, but nothing holds the readers of a cold key back
"""Product prices: a Redis cache in front of a catalog that takes 200 ms to answer."""

import json
import math
import os
import random

import httpx
import redis.asyncio as redis
from fastapi import FastAPI, HTTPException

FRESH_MS = 1000
STALE_MS = 60_000  # so long it is kept, for the case that the catalog fails
LOAD_MS = 200

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
    early_ms = -LOAD_MS * math.log(1 - random.random())  # XFetch: the nearer the end, the likelier a refresh
    if fresh_ms > early_ms:
        return product
    return await fill(key, product)


async def fill(key: str, stale: dict | None) -> dict:
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
