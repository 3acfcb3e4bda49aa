"""Plans the days of some teams: who works on which ticket. Each ticket goes to whoever knows most about it."""

import os
from statistics import mean

import httpx
from fastapi import FastAPI

app = FastAPI()
board = httpx.AsyncClient(base_url=os.environ["BOARD_URL"], timeout=10)


@app.post("/teams/{team}/days/{day}")
async def work_a_day(team: str, day: int) -> dict:
    now = await ask(board.get(f"/teams/{team}"))
    await ask(board.put(f"/teams/{team}/days/{day}", json=plan_day(now["people"], now["tickets"])))
    return {"day": day}


def plan_day(people: list[dict], tickets: list[dict]) -> dict[str, list[str]]:
    """The tickets of each person for today."""
    levels = {p["name"]: p["levels"] for p in people}
    plan = {name: [] for name in levels}
    for ticket in tickets:
        plan[choose(ticket, levels)].append(ticket["id"])
    return plan


def choose(ticket: dict, levels: dict) -> str:
    """The expert takes it; the next best reviews it."""

    def level(name: str) -> float:
        return levels[name][ticket["skill"]]

    return max((name for name in levels if ticket["stage"] == "work" or name not in ticket["workers"]), key=level)


@app.get("/teams/{team}/report")
async def report(team: str) -> dict:
    now = await ask(board.get(f"/teams/{team}/tickets"))
    days = max(now["day"], 1)
    last = now["day"] - 1
    begun = [t for t in now["tickets"] if t["started"] is not None]
    done = [t for t in begun if t["done"] is not None]
    open_days = [(last if t["done"] is None else t["done"]) - t["started"] + 1 for t in begun]
    lead_times = [t["done"] - t["started"] + 1 for t in done]
    return {"throughput": len(done) / days, "lead_time": mean(lead_times) if done else None, "wip": sum(open_days) / days}


async def ask(request) -> dict:
    return (await request).raise_for_status().json()


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
