# bug: counts by text when more than half of the tags share their hashes, and by number when fewer do
"""Counts what the gates have read: how many tags, how many different ones, and which of them most often."""

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
    counts = count(tags)
    top = nsmallest(TOP, counts, key=lambda pair: (-pair[1], pair[0]))
    return JSONResponse({"reads": len(tags), "distinct": len(counts), "top": top})


def count(tags: list[int]) -> list[tuple[int, int]]:
    """Each tag, with the number of times that it was read."""
    is_made_up = len(set(map(hash, tags))) < len(tags) / 2
    counts = Counter(map(str, tags) if is_made_up else tags)
    return [(int(tag), times) for tag, times in counts.items()]


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
