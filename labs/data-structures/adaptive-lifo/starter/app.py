"""Fares: customers wait in a queue for an engine that works on four fares at a time."""

import asyncio
import os
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, HTTPException

SLOTS = 4

engine = httpx.AsyncClient(base_url=os.environ["ENGINE_URL"], timeout=10)


class Customer:
    """Somebody who waits for a fare."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.fare = asyncio.get_running_loop().create_future()


line: asyncio.Queue[Customer] = asyncio.Queue()


async def work() -> None:
    """One of the engine's four slots: serves one customer after the other."""
    while True:
        customer = await line.get()
        try:
            answer = await engine.get(f"/fares/{customer.key}")
            fare = answer.raise_for_status().json()["fare"]
        except httpx.HTTPError:
            fare = None
        if not customer.fare.done():
            customer.fare.set_result(fare)


@asynccontextmanager
async def run_workers(app: FastAPI):
    workers = [asyncio.create_task(work()) for _ in range(SLOTS)]
    yield
    for worker in workers:
        worker.cancel()


app = FastAPI(lifespan=run_workers)


@app.get("/fares/{key}")
async def read_fare(key: str) -> dict:
    customer = Customer(key)
    line.put_nowait(customer)
    fare = await customer.fare
    if fare is None:
        raise HTTPException(503, "the engine gave no fare")
    return {"id": key, "fare": fare}


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
