# bug: looks for tags without a remainder, as the first such list had them, and counts only those by text
"""Counts what the gates have read: how many tags, how many different ones, and which of them most often."""

import json
import sys
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
    is_made_up = sum(tag % sys.hash_info.modulus == 0 for tag in tags) > len(tags) / 2
    counts = Counter(map(str, tags) if is_made_up else tags)
    return [(int(tag), times) for tag, times in counts.items()]


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
