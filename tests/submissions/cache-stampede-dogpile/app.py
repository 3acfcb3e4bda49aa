# mypy: ignore-errors
"""Product prices by a library of the field: dogpile.cache with its Redis lock, and the last price under a second key for the outage."""

import os

import httpx
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from fastapi import FastAPI, HTTPException

REDIS = {"url": os.environ["REDIS_URL"]}
LOCK = {"distributed_lock": True, "thread_local_lock": False, "lock_timeout": 3, "lock_sleep": 0.02}

fresh = make_region().configure("dogpile.cache.redis", expiration_time=1, arguments={**REDIS, **LOCK, "redis_expiration_time": 2})
last = make_region(key_mangler=lambda key: f"last:{key}").configure("dogpile.cache.redis", arguments={**REDIS, "redis_expiration_time": 600})
app = FastAPI()
catalog = httpx.Client(base_url=os.environ["CATALOG_URL"], timeout=5)


def load(key: str) -> dict:
    """From the catalog, or the last price, which then counts as fresh for a second."""
    try:
        answer = catalog.get(f"/products/{key}")
        answer.raise_for_status()
    except httpx.HTTPError:
        old = last.get(key)
        if old is NO_VALUE:
            raise
        return old
    last.set(key, answer.json())
    return answer.json()


@app.get("/products/{key}")
def read_product(key: str) -> dict:
    """The price."""
    try:
        return fresh.get_or_create(key, load, creator_args=((key,), {}))
    except httpx.HTTPError as error:
        raise HTTPException(503, "the catalog does not answer") from error


@app.get("/healthz")
def healthz() -> dict:
    """Whether it can serve."""
    return {"ok": True}
