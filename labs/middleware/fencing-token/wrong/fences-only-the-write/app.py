# bug: reads without the token and writes only while its lease lasts, so a write that is late gets in between a later holder's read and its write
"""Adds lines to invoices: reads the whole invoice, has it rendered, and writes it back, under a lock for each invoice."""

import asyncio
import os
import time

import httpx
import redis.asyncio as redis
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

LEASE_MS = 2000  # longer than the slowest rendering, and no longer than others may wait for a worker that is gone
WAIT_S = 10
POLL_S = 0.04
TRIES = 5

# The lock's value is the fencing token: the next number, taken in the same step, so that tokens have the order of the holders.
ACQUIRE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local token = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], token, 'PX', ARGV[1])
return token
"""
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"

app = FastAPI()
locks = redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
storage = httpx.AsyncClient(base_url=os.environ["STORAGE_URL"], timeout=5)
renderer = httpx.AsyncClient(base_url=os.environ["RENDERER_URL"], timeout=5)


class NewLine(BaseModel):
    line: str


class Overtaken(Exception):
    """Somebody with a higher token has been at the storage: we do not hold the lock any more, whatever we believed."""


async def acquire(invoice: str) -> int:
    """Wait for the lock; its fencing token."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if token := await locks.eval(ACQUIRE, 2, f"lock:{invoice}", f"token:{invoice}", LEASE_MS):
            return token
        await asyncio.sleep(POLL_S)
    raise HTTPException(503, "this invoice is busy, try again")


async def release(invoice: str, token: int) -> None:
    await locks.eval(RELEASE, 1, f"lock:{invoice}", token)  # only if it is still ours


async def ask(request) -> dict:
    """The answer to a request to storage or renderer."""
    answer = await request
    if answer.status_code == 409:
        raise Overtaken
    return answer.raise_for_status().json()


async def add_as_holder(invoice: str, line: str, token: int, lease_end: float) -> None:
    lines = (await ask(storage.get(f"/invoices/{invoice}")))["lines"]
    if line in lines:
        return  # by an earlier try
    lines.append(line)
    page = (await ask(renderer.post("/pages", json={"invoice": invoice, "lines": lines})))["page"]
    if time.monotonic() > lease_end:
        raise Overtaken
    await ask(storage.put(f"/invoices/{invoice}", json={"lines": lines, "page": page, "token": token}))


@app.post("/invoices/{invoice}/lines")
async def add_line(invoice: str, new: NewLine) -> dict:
    for _ in range(TRIES):
        token = await acquire(invoice)
        lease_end = time.monotonic() + LEASE_MS / 1000
        try:
            await add_as_holder(invoice, new.line, token, lease_end)
        except Overtaken:
            continue  # nothing was written: once more, as a new holder
        except httpx.HTTPError as error:
            raise HTTPException(503, "it may be done or not, try again") from error
        else:
            return {"line": new.line}
        finally:
            await release(invoice, token)
    raise HTTPException(503, "overtaken again and again, try again")


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
