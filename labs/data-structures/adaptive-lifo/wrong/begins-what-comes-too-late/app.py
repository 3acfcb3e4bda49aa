# bug: first come, first served, and begun as long as there is any time left: nearly every fare is ready just too late
"""Fares: customers wait in a queue for an engine that works on four fares at a time. Who has no time left is left out."""

import asyncio
import os
import time
from collections import deque
from contextlib import asynccontextmanager, suppress

import httpx
from fastapi import FastAPI, Header, HTTPException

SLOTS = 4

engine = httpx.AsyncClient(base_url=os.environ["ENGINE_URL"], timeout=10)


class Customer:
    """Somebody who waits for a fare, but not for ever."""

    def __init__(self, key: str, patience_s: float) -> None:
        self.key = key
        self.patience_s = patience_s
        self.gone_at = time.monotonic() + patience_s
        self.fare = asyncio.get_running_loop().create_future()

    def left_s(self) -> float:
        return self.gone_at - time.monotonic()


class Line:
    """Who waits, in the order of coming."""

    def __init__(self) -> None:
        self.waiting: deque[Customer] = deque()
        self.is_joined = asyncio.Event()

    def join(self, customer: Customer) -> None:
        self.waiting.append(customer)
        self.is_joined.set()

    def leave(self, customer: Customer) -> None:
        with suppress(ValueError):  # served
            self.waiting.remove(customer)

    async def get(self) -> Customer:
        """The next one to be served."""
        while True:
            while not self.waiting:
                self.is_joined.clear()
                await self.is_joined.wait()
            customer = self.waiting.popleft()
            if customer.left_s() > 0:
                return customer


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
async def read_fare(key: str, x_timeout_ms: int = Header()) -> dict:
    customer = Customer(key, x_timeout_ms / 1000)
    line.join(customer)
    try:
        fare = await asyncio.wait_for(customer.fare, customer.patience_s)
    except TimeoutError:
        fare = None
    finally:
        line.leave(customer)
    if fare is None:
        raise HTTPException(503, "no fare in time")
    return {"id": key, "fare": fare}


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
