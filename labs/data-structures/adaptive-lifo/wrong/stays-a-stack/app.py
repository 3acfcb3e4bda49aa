# bug: the line becomes a stack in the first rush, and stays one
"""Fares: customers wait in a line for an engine that works on four fares at a time. It is a queue while it moves, and a stack while it stands."""

import asyncio
import os
import time
from collections import deque
from contextlib import asynccontextmanager, suppress

import httpx
from fastapi import FastAPI, Header, HTTPException

SLOTS = 4
NEEDED_S = 0.15  # for a fare, and for the way there and back
STANDS = 0.75  # so much of his time has gone for who is in front: this is no burst that the queue will work off

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
        self.is_stack = False

    def join(self, customer: Customer) -> None:
        self.waiting.append(customer)
        self.is_joined.set()

    def leave(self, customer: Customer) -> None:
        with suppress(ValueError):  # served
            self.waiting.remove(customer)

    def stands(self) -> bool:
        first = self.waiting[0]
        self.is_stack = self.is_stack or first.left_s() < (1 - STANDS) * first.patience_s
        return self.is_stack

    async def get(self) -> Customer:
        """The next one to be served: the first one, or, when waiting for one's turn has become hopeless, the last."""
        while True:
            while not self.waiting:
                self.is_joined.clear()
                await self.is_joined.wait()
            customer = self.waiting.pop() if self.stands() else self.waiting.popleft()
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
        line.leave(customer)  # when his time is over, not when his turn comes: at the bottom of a stack it does not come
    if fare is None:
        raise HTTPException(503, "no fare in time")
    return {"id": key, "fare": fare}


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
