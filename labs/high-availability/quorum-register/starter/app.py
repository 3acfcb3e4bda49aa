"""A node of the settings store: answers from its own copy, and tells the others."""

import asyncio
import os
import time
from contextlib import suppress

import httpx
from fastapi import FastAPI
from pydantic import BaseModel

PEERS = os.environ["PEERS"].split(",")
ANSWER_WITHIN_S = 1.0

app = FastAPI()
copies: dict[str, tuple[float, str]] = {}  # key -> when it was written, value
no_limits = httpx.Limits(max_connections=None)  # a peer that does not answer keeps a connection for each request
peers = [httpx.AsyncClient(base_url=url, timeout=ANSWER_WITHIN_S, limits=no_limits) for url in PEERS]
tasks: set[asyncio.Task] = set()


class Setting(BaseModel):
    value: str


class Entry(BaseModel):
    written_at: float
    value: str


def in_background(work) -> asyncio.Task:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def ask(peer: httpx.AsyncClient, method: str, path: str, body: dict | None = None):
    """A peer's answer; None when there is none."""
    with suppress(httpx.HTTPError, ValueError):
        answer = await peer.request(method, path, json=body)
        if answer.status_code == 200:
            return answer.json()
    return None


def keep(key: str, written_at: float, value: str) -> None:
    """Take it if it is newer."""
    if key not in copies or written_at > copies[key][0]:
        copies[key] = written_at, value


@app.put("/settings/{key}")
async def write(key: str, setting: Setting) -> dict:
    now = time.time()
    keep(key, now, setting.value)
    for peer in peers:
        in_background(ask(peer, "PUT", f"/local/{key}", {"written_at": now, "value": setting.value}))
    return {"value": setting.value}


@app.get("/settings/{key}")
@app.get("/local/{key}")
async def read(key: str) -> dict:
    return {"value": copies[key][1] if key in copies else None}


@app.put("/local/{key}")
async def write_local(key: str, entry: Entry) -> dict:
    keep(key, entry.written_at, entry.value)
    return {}


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
