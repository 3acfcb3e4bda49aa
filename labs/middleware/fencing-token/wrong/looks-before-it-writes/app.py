# bug: makes sure that the lock is still its own right before the write, which can be late all the same
"""Adds lines to invoices: reads the whole invoice, has it rendered, and writes it back, under a lock for each invoice."""

import asyncio
import os
import time
import uuid

import httpx
import redis.asyncio as redis
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

LEASE_MS = 2000  # longer than the slowest rendering, and no longer than others may wait for a worker that is gone
WAIT_S = 10
POLL_S = 0.04

RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"

app = FastAPI()
locks = redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
storage = httpx.AsyncClient(base_url=os.environ["STORAGE_URL"], timeout=5)
renderer = httpx.AsyncClient(base_url=os.environ["RENDERER_URL"], timeout=5)


class NewLine(BaseModel):
    line: str


async def acquire(invoice: str) -> str:
    """Wait for the lock; what shows that it is ours."""
    owner = uuid.uuid4().hex
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if await locks.set(f"lock:{invoice}", owner, nx=True, px=LEASE_MS):
            return owner
        await asyncio.sleep(POLL_S)
    raise HTTPException(503, "this invoice is busy, try again")


async def release(invoice: str, owner: str) -> None:
    await locks.eval(RELEASE, 1, f"lock:{invoice}", owner)  # only if it is still ours


async def ask(request) -> dict:
    """The answer to a request to storage or renderer."""
    answer = await request
    return answer.raise_for_status().json()


async def add_as_holder(invoice: str, line: str, owner: str) -> None:
    lines = (await ask(storage.get(f"/invoices/{invoice}")))["lines"]
    if line in lines:
        return  # by an earlier try
    lines.append(line)
    page = (await ask(renderer.post("/pages", json={"invoice": invoice, "lines": lines})))["page"]
    if await locks.get(f"lock:{invoice}") != owner:
        raise HTTPException(503, "the lock was lost, try again")
    await ask(storage.put(f"/invoices/{invoice}", json={"lines": lines, "page": page}))


@app.post("/invoices/{invoice}/lines")
async def add_line(invoice: str, new: NewLine) -> dict:
    owner = await acquire(invoice)
    try:
        await add_as_holder(invoice, new.line, owner)
    except httpx.HTTPError as error:
        raise HTTPException(503, "it may be done or not, try again") from error
    finally:
        await release(invoice, owner)
    return {"line": new.line}


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
