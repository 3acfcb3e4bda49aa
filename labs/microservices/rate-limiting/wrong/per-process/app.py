# bug: each replica has a bucket of its own, so two replicas allow twice the rate
"""A gateway that lets each API key through at 10 requests a second, with bursts of 10."""

import math
import time

from fastapi import FastAPI, Header, Response

RATE = 10  # requests a second
BURST = 10

app = FastAPI()


class LocalBucket:
    """A bucket for each key."""

    def __init__(self) -> None:
        self.empty_at: dict[str, float] = {}

    def wait_s(self, key: str) -> float:
        step = 1 / RATE
        empty_at = max(self.empty_at.get(key, 0.0), time.monotonic()) + step
        wait = empty_at - BURST * step - time.monotonic()
        if wait <= 0:
            self.empty_at[key] = empty_at
        return max(wait, 0.0)


local = LocalBucket()


async def wait_s(key: str) -> float:
    """0 when the request may pass, else the seconds until the next one may."""
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
