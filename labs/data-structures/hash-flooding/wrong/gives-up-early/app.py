# bug: gives up a list after a tenth of a second, which it has cost by then
"""Counts what the gates have read: how many tags, how many different ones, and which of them most often."""

import json
import time
from heapq import nsmallest

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

TOP = 10
LIMIT_S = 0.1

app = FastAPI()


@app.post("/reads")
async def count_reads(request: Request) -> JSONResponse:
    tags = json.loads(await request.body())["tags"]
    counts = count(tags)
    top = nsmallest(TOP, counts, key=lambda pair: (-pair[1], pair[0]))
    return JSONResponse({"reads": len(tags), "distinct": len(counts), "top": top})


def count(tags: list[int]) -> list[tuple[int, int]]:
    """Each tag, with the number of times that it was read."""
    counts, until_s = {}, time.monotonic() + LIMIT_S
    for place, tag in enumerate(tags):
        if place % 100 == 0 and time.monotonic() > until_s:
            raise HTTPException(503, "this takes too long")
        counts[tag] = counts.get(tag, 0) + 1
    return list(counts.items())


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
