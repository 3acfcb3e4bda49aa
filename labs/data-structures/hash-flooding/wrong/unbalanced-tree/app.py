# bug: counts in a tree that nobody balances: of tags in ascending order it makes a chain
"""Counts what the gates have read: how many tags, how many different ones, and which of them most often."""

import json
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


class Node:
    """A tag, and where the smaller and the greater ones are."""

    def __init__(self, tag: int) -> None:
        self.tag, self.times = tag, 1
        self.smaller: Node | None = None
        self.greater: Node | None = None


def count(tags: list[int]) -> list[tuple[int, int]]:
    """Each tag, with the number of times that it was read. A tree compares tags and needs no hash of them."""
    nodes = []
    for tag in tags:
        node = nodes[0] if nodes else None
        while node and node.tag != tag:
            above, is_smaller = node, tag < node.tag
            node = node.smaller if is_smaller else node.greater
        if node:
            node.times += 1
            continue
        nodes.append(Node(tag))
        if len(nodes) > 1 and is_smaller:
            above.smaller = nodes[-1]
        elif len(nodes) > 1:
            above.greater = nodes[-1]
    return [(node.tag, node.times) for node in nodes]


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
