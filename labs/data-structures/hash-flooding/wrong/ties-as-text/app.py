# bug: takes, of tags that were read equally often, those whose text comes first: there -9 comes after -1
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
    counts = Counter(map(str, tags))
    top = nsmallest(TOP, counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return JSONResponse({"reads": len(tags), "distinct": len(counts), "top": [(int(text), times) for text, times in top]})


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
