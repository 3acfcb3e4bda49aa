# bug: a heap, the most urgent first: in a rush that is always somebody who has nearly no time left
"""Fares: customers wait in a line for an engine that works on four fares at a time. The most urgent is served first."""

import asyncio
import heapq
import os
import time
from contextlib import asynccontextmanager, suppress

import httpx
from fastapi import FastAPI, Header, HTTPException

SLOTS = 4
NEEDED_S = 0.15  # for a fare, and for the way there and back

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

    def __lt__(self, other: "Customer") -> bool:
        return self.gone_at < other.gone_at


class Line:
    """Who waits: a heap, whoever leaves first on top."""

    def __init__(self) -> None:
        self.waiting: list[Customer] = []
        self.is_joined = asyncio.Event()

    def join(self, customer: Customer) -> None:
        heapq.heappush(self.waiting, customer)
        self.is_joined.set()

    def leave(self, customer: Customer) -> None:
        with suppress(ValueError):  # served
            self.waiting.remove(customer)
            heapq.heapify(self.waiting)

    async def get(self) -> Customer:
        """The next one to be served."""
        while True:
            while not self.waiting:
                self.is_joined.clear()
                await self.is_joined.wait()
            customer = heapq.heappop(self.waiting)
            if customer.left_s() > NEEDED_S:
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
