"""An edge that is no nginx: one plain body for each page or file, compressed on the way out."""

import asyncio
import gzip
import os
import re
import time
from collections import defaultdict
from dataclasses import dataclass

import httpx
from fastapi import FastAPI, Request, Response

ORIGIN = os.environ["ORIGIN_URL"]
PERSONAL = ("authorization", "cookie")
ACCEPTS_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
client = httpx.AsyncClient(timeout=5)
app = FastAPI()


@dataclass
class Entry:
    """What was fetched, and until when it need not be asked for again."""

    answer: httpx.Response
    fresh_until: float


kept: dict[tuple[str, str], Entry] = {}
locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)


@app.get("/healthz")
def healthz() -> str:
    return "ok"


@app.get("/{path:path}")
async def get(request: Request, path: str) -> Response:
    host = request.headers["host"]
    if any(name in request.headers for name in PERSONAL):
        return give(request, await fetch(host, f"/{path}", {name: request.headers[name] for name in PERSONAL if name in request.headers}))
    asked = request.query_params
    address = f"/{path}?w={asked.get('w', 640)}&q={asked.get('q', 80)}" if path.startswith("img/") else f"/{path}"
    key = host, address
    entry = kept.get(key)
    if entry is None or entry.fresh_until < time.monotonic():
        async with locks[key]:
            entry = kept.get(key)
            if entry is None or entry.fresh_until < time.monotonic():
                answer = await fetch(host, address, {})
                if (seconds := lifetime(answer)) is not None:
                    entry = kept[key] = Entry(answer, time.monotonic() + seconds)
                elif answer.status_code < 500 or entry is None:
                    return give(request, answer)
    return give(request, entry.answer)


async def fetch(host: str, address: str, personal: dict[str, str]) -> httpx.Response:
    """The origin's answer, or a 502. Nothing of the request but what is in the key, or makes it personal."""
    try:
        return await client.get(ORIGIN + address, headers={"host": host, "accept-encoding": "identity", **personal})
    except httpx.HTTPError:
        return httpx.Response(502)


def lifetime(answer: httpx.Response) -> int | None:
    """For how many seconds it may be kept; None for what may not."""
    caching = answer.headers.get("cache-control", "")
    age = re.search(r"max-age=(\d+)", caching)
    if answer.status_code != 200 or "set-cookie" in answer.headers or re.search("private|no-store", caching) or not age:
        return None
    return int(age[1])


def give(request: Request, answer: httpx.Response) -> Response:
    """An answer in the form that its asker accepts."""
    headers = {name: answer.headers[name] for name in ("content-type", "cache-control", "vary", "set-cookie") if name in answer.headers}
    if "etag" in answer.headers:
        headers["etag"] = f"W/{answer.headers['etag']}"
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(b"", 304, headers)
    body = answer.content
    if "vary" in headers and ACCEPTS_GZIP.search(request.headers.get("accept-encoding", "")):
        body = gzip.compress(body, 1)
        headers["content-encoding"] = "gzip"
    return Response(body, answer.status_code, headers)
