# bug: leaves all to the storage's versions: workers render the same invoice side by side, and all but one in vain
"""Adds lines to invoices: reads the whole invoice, has it rendered, and writes it back if nobody else has."""

import asyncio
import os
import random

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

TRIES = 50

app = FastAPI()
storage = httpx.AsyncClient(base_url=os.environ["STORAGE_URL"], timeout=5)
renderer = httpx.AsyncClient(base_url=os.environ["RENDERER_URL"], timeout=5)


class NewLine(BaseModel):
    line: str


class Overtaken(Exception):
    """Somebody has written the invoice since we read it."""


async def ask(request) -> dict:
    """The answer to a request to storage or renderer."""
    answer = await request
    if answer.status_code == 412:
        raise Overtaken
    return answer.raise_for_status().json()


async def add(invoice: str, line: str) -> None:
    stored = await ask(storage.get(f"/invoices/{invoice}"))
    lines = stored["lines"]
    if line in lines:
        return  # by an earlier try
    lines.append(line)
    page = (await ask(renderer.post("/pages", json={"invoice": invoice, "lines": lines})))["page"]
    await ask(storage.put(f"/invoices/{invoice}", json={"lines": lines, "page": page, "if_version": stored["version"]}))


@app.post("/invoices/{invoice}/lines")
async def add_line(invoice: str, new: NewLine) -> dict:
    for _ in range(TRIES):
        try:
            await add(invoice, new.line)
        except Overtaken:
            await asyncio.sleep(random.uniform(0, 0.2))  # nothing was written: once more, with what is there now
        except httpx.HTTPError as error:
            raise HTTPException(503, "it may be done or not, try again") from error
        else:
            return {"line": new.line}
    raise HTTPException(503, "overtaken again and again, try again")


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
