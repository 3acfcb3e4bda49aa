"""Product prices: a Redis cache in front of a catalog that takes 200 ms to answer."""

import json
import os

import httpx
import redis.asyncio as redis
from fastapi import FastAPI, HTTPException

FRESH_MS = 1000

app = FastAPI()
cache = redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
catalog = httpx.AsyncClient(base_url=os.environ["CATALOG_URL"], timeout=5)


async def load(key: str) -> dict:
    answer = await catalog.get(f"/products/{key}")
    answer.raise_for_status()
    return answer.json()


@app.get("/products/{key}")
async def read_product(key: str) -> dict:
    cached = await cache.get(f"product:{key}")
    if cached:
        return json.loads(cached)
    try:
        product = await load(key)
    except httpx.HTTPError as error:
        raise HTTPException(503, "the catalog does not answer") from error
    await cache.set(f"product:{key}", json.dumps(product), px=FRESH_MS)
    return product


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
