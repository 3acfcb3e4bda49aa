# bug: puts a secret beside each tag, and the hash of the pair is made of the tag's own
"""Counts what the gates have read: how many tags, how many different ones, and which of them most often."""

import json
import secrets
from collections import Counter
from heapq import nsmallest

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

TOP = 10
SALT = secrets.randbits(64)

app = FastAPI()


@app.post("/reads")
async def count_reads(request: Request) -> JSONResponse:
    tags = json.loads(await request.body())["tags"]
    counts = count(tags)
    top = nsmallest(TOP, counts, key=lambda pair: (-pair[1], pair[0]))
    return JSONResponse({"reads": len(tags), "distinct": len(counts), "top": top})


def count(tags: list[int]) -> list[tuple[int, int]]:
    """Each tag, with the number of times that it was read."""
    counts = Counter((tag, SALT) for tag in tags)
    return [(tag, times) for (tag, _), times in counts.items()]


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
