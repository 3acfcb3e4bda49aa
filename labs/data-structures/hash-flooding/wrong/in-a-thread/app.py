# bug: counts in a thread, so that the loop goes on: the CPU is used up all the same
"""Counts what the gates have read: how many tags, how many different ones, and which of them most often."""

import asyncio
import json
from collections import Counter
from heapq import nsmallest

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

TOP = 10

app = FastAPI()


@app.post("/reads")
async def count_reads(request: Request) -> JSONResponse:
    tags = json.loads(await request.body())["tags"]
    counts = await asyncio.to_thread(count, tags)
    top = nsmallest(TOP, counts, key=lambda pair: (-pair[1], pair[0]))
    return JSONResponse({"reads": len(tags), "distinct": len(counts), "top": top})


def count(tags: list[int]) -> list[tuple[int, int]]:
    """Each tag, with the number of times that it was read."""
    return list(Counter(tags).items())


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
