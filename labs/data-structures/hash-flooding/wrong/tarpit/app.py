# bug: lets such a list wait before it is counted, to slow the laptop down, and everybody waits with it
"""Counts what the gates have read: how many tags, how many different ones, and which of them most often."""

import json
import time
from collections import Counter
from heapq import nsmallest

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

TOP = 10
WAIT_S = 0.4

app = FastAPI()


@app.post("/reads")
async def count_reads(request: Request) -> JSONResponse:
    tags = json.loads(await request.body())["tags"]
    if len(set(map(hash, tags))) < len(tags) / 2:
        time.sleep(WAIT_S)  # the bug: the loop waits, too
    counts = count(tags)
    top = nsmallest(TOP, counts, key=lambda pair: (-pair[1], pair[0]))
    return JSONResponse({"reads": len(tags), "distinct": len(counts), "top": top})


def count(tags: list[int]) -> list[tuple[int, int]]:
    """Each tag, with the number of times that it was read."""
    counts = Counter(map(str, tags))
    return [(int(text), times) for text, times in counts.items()]


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
