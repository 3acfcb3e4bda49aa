# bug: uses up CPU for each list, in proportion to its length, so that one of the laptop's stands out less
"""Counts what the gates have read: how many tags, how many different ones, and which of them most often."""

import json
import time
from collections import Counter
from heapq import nsmallest

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

TOP = 10
PAD_S = 4e-5  # of CPU for each tag

app = FastAPI()


@app.post("/reads")
async def count_reads(request: Request) -> JSONResponse:
    tags = json.loads(await request.body())["tags"]
    counts = count(tags)
    top = nsmallest(TOP, counts, key=lambda pair: (-pair[1], pair[0]))
    return JSONResponse({"reads": len(tags), "distinct": len(counts), "top": top})


def count(tags: list[int]) -> list[tuple[int, int]]:
    """Each tag, with the number of times that it was read."""
    until_s = time.thread_time() + PAD_S * len(tags)
    while time.thread_time() < until_s:
        pass
    return list(Counter(tags).items())


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
