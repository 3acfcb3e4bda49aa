# bug: reads its file when it starts and begins it anew, so what it had read is gone at the next crash
"""A node of the settings store: a register for each key, of which a majority of the nodes has the newest value."""

import asyncio
import json
import os
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

ME = int(os.environ["REPLICA"])
PEERS = os.environ["PEERS"].split(",")
MAJORITY = (len(PEERS) + 1) // 2 + 1
ANSWER_WITHIN_S = 1.0
SYNC_EVERY_S = 1.0


class Copy(NamedTuple):
    """A value and the tag that says which of two is newer: how many writes it has seen before it, then who wrote it."""

    tag: tuple[int, int] = (0, 0)
    value: str | None = None


class Setting(BaseModel):
    value: str


class Entry(BaseModel):
    tag: tuple[int, int]
    value: str | None


class Copies:
    """What this node has, in a file of what has come since its start."""

    def __init__(self, path: Path) -> None:
        self.copies: dict[str, Copy] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                with suppress(ValueError):  # cut off by the end of an earlier life: nobody was told of it
                    key, tag, value = json.loads(line)
                    self.copies[key] = Copy(tuple(tag), value)
        self.file = path.open("w")  # what was in it is in memory now

    def get(self, key: str) -> Copy:
        return self.copies.get(key, Copy())

    def keep(self, key: str, copy: Copy) -> None:
        """Take it if it is newer. On the disk before anybody hears of it."""
        if copy.tag > self.get(key).tag:
            self.file.write(json.dumps([key, copy.tag, copy.value]) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())
            self.copies[key] = copy


mine = Copies(Path(os.environ["DATA_DIR"]) / "copies.jsonl")
no_limits = httpx.Limits(max_connections=None)  # a peer that does not answer keeps a connection for each request
peers = [httpx.AsyncClient(base_url=url, timeout=ANSWER_WITHIN_S, limits=no_limits) for url in PEERS]
tasks: set[asyncio.Task] = set()


def in_background(work) -> asyncio.Task:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def ask(peer: httpx.AsyncClient, method: str, path: str, body: dict | None = None):
    """A peer's answer; None when there is none."""
    with suppress(httpx.HTTPError, ValueError):
        answer = await peer.request(method, path, json=body)
        if answer.status_code == 200:
            return answer.json()
    return None


async def ask_majority(method: str, path: str, body: dict | None = None) -> list:
    """The answers of as many peers as make a majority with this node. All are asked, the slow ones are not waited for."""
    answers = []
    for next_answer in asyncio.as_completed([in_background(ask(peer, method, path, body)) for peer in peers]):
        if (answer := await next_answer) is not None:
            answers.append(answer)
            if len(answers) + 1 == MAJORITY:
                return answers
    raise HTTPException(503, "no majority answers, try again")


async def read_majority(key: str) -> list[Copy]:
    return [Copy(tuple(answer["tag"]), answer["value"]) for answer in await ask_majority("GET", f"/local/{key}")]


async def write_majority(key: str, copy: Copy) -> None:
    mine.keep(key, copy)
    await ask_majority("PUT", f"/local/{key}", copy._asdict())


async def sync() -> None:
    """Fetch what this node has missed."""
    while True:
        await asyncio.sleep(SYNC_EVERY_S)
        for answer in await asyncio.gather(*(ask(peer, "GET", "/local") for peer in peers)):
            for key, (tag, value) in (answer or {}).items():
                mine.keep(key, Copy(tuple(tag), value))


@asynccontextmanager
async def lifespan(app: FastAPI):
    in_background(sync())
    yield


app = FastAPI(lifespan=lifespan)


@app.put("/settings/{key}")
async def write(key: str, setting: Setting) -> dict:
    newest = max(copy.tag for copy in [*await read_majority(key), mine.get(key)])
    # Nothing is awaited from here to `keep`: two writes of this node get two tags, also when it dies in between.
    await write_majority(key, Copy((newest[0] + 1, ME), setting.value))
    return {"value": setting.value}


@app.get("/settings/{key}")
async def read(key: str) -> dict:
    found = [*await read_majority(key), mine.get(key)]
    newest = max(found)
    if any(copy.tag != newest.tag for copy in found):
        await write_majority(key, newest)  # perhaps its writer has died: who reads after us must find it too
    return {"value": newest.value}


@app.get("/local/{key}")
async def read_local(key: str) -> dict:
    return mine.get(key)._asdict()


@app.get("/local")
async def read_all() -> dict:
    return mine.copies


@app.put("/local/{key}")
async def write_local(key: str, entry: Entry) -> dict:
    mine.keep(key, Copy(entry.tag, entry.value))
    return {}


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
