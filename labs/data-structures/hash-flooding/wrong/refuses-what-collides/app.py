# bug: sees that the tags of a list share one hash, and refuses the list
"""Counts what the gates have read: how many tags, how many different ones, and which of them most often."""

import json
from collections import Counter
from heapq import nsmallest

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

TOP = 10
SHORT = 100  # what can such a list do?

app = FastAPI()


@app.post("/reads")
async def count_reads(request: Request) -> JSONResponse:
    tags = json.loads(await request.body())["tags"]
    if len(tags) > SHORT and len(set(map(hash, tags))) < len(tags) / 2:
        raise HTTPException(400, "these tags are no accident")
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
