# bug: throws the line away when it is full, as the restart did, and looks at no clock: in a quiet hour it is never full
"""Fares: customers wait in a queue for an engine that works on four fares at a time. When it is full, all of them are turned away."""

import asyncio
import os
from collections import deque
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, HTTPException

SLOTS, ROOM = 4, 36

engine = httpx.AsyncClient(base_url=os.environ["ENGINE_URL"], timeout=10)


class Customer:
    """Somebody who waits for a fare."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.fare = asyncio.get_running_loop().create_future()


class Line:
    """Who waits, in the order of coming."""

    def __init__(self) -> None:
        self.waiting: deque[Customer] = deque()
        self.is_joined = asyncio.Event()

    def join(self, customer: Customer) -> None:
        if len(self.waiting) >= ROOM:
            for refused in self.waiting:
                refused.fare.set_result(None)
            self.waiting.clear()
        self.waiting.append(customer)
        self.is_joined.set()

    async def get(self) -> Customer:
        """The next one to be served."""
        while not self.waiting:
            self.is_joined.clear()
            await self.is_joined.wait()
        return self.waiting.popleft()


line = Line()


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
    line.join(customer)
    fare = await customer.fare
    if fare is None:
        raise HTTPException(503, "no fare in time")
    return {"id": key, "fare": fare}


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
