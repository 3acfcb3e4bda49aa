# bug: works ten days when it is asked for the first of them, and answers 200 to the other nine without doing anything
"""Plans the days of some teams: who works on which ticket. Each person pulls one, finishes before it starts, and learns what only one can do."""

import os
from statistics import mean

import httpx
from fastapi import FastAPI

WIP_LIMIT = 1  # tickets in a person's hands
SPRINT = 10  # days
CAPABLE = 0.7  # of a skill's second person; below it, they go first

app = FastAPI()
board = httpx.AsyncClient(base_url=os.environ["BOARD_URL"], timeout=10)


@app.post("/teams/{team}/days/{day}")
async def work_a_day(team: str, day: int) -> dict:
    now = await ask(board.get(f"/teams/{team}"))
    while now["day"] <= day or now["day"] % SPRINT:
        await ask(board.put(f"/teams/{team}/days/{now['day']}", json=plan_day(now["people"], now["tickets"])))
        now = await ask(board.get(f"/teams/{team}"))
    return {"day": day}


def plan_day(people: list[dict], tickets: list[dict]) -> dict[str, list[str]]:
    """The tickets of each person for today."""
    levels = {p["name"]: p["levels"] for p in people if not p["left"]}
    plan = {name: [] for name in levels}
    for ticket in sorted(tickets, key=urgency):
        free = [name for name in plan if len(plan[name]) < WIP_LIMIT]
        who = choose(ticket, free, levels)
        if who:
            plan[who].append(ticket["id"])
    return plan


def urgency(ticket: dict) -> tuple:
    """What is nearest to its end first: reviews, then what is begun, then the oldest."""
    is_new = ticket["started"] is None
    return ticket["stage"] != "review", is_new, ticket["arrived"]


def choose(ticket: dict, free: list[str], levels: dict) -> str | None:
    """Who takes it, of those who are free; None when nobody can."""

    def level(name: str) -> float:
        return levels[name][ticket["skill"]]

    if ticket["stage"] == "review":
        return max((name for name in free if name not in ticket["workers"]), key=level, default=None)
    begun = [name for name in ticket["workers"] if name in free]
    second = sorted(levels, key=level)[-2]
    if begun:
        return begun[-1]
    if second in free and level(second) < CAPABLE:
        return second
    return max(free, key=level, default=None)


@app.get("/teams/{team}/report")
async def report(team: str) -> dict:
    now = await ask(board.get(f"/teams/{team}/tickets"))
    days = max(now["day"], 1)
    last = now["day"] - 1
    done = [t for t in now["tickets"] if t["done"] is not None]
    # A customer's clock starts when the ticket comes.
    open_days = [(last if t["done"] is None else t["done"]) - t["arrived"] + 1 for t in now["tickets"]]
    lead_times = [t["done"] - t["arrived"] + 1 for t in done]
    return {"throughput": len(done) / days, "lead_time": mean(lead_times) if done else None, "wip": sum(open_days) / days}


async def ask(request) -> dict:
    return (await request).raise_for_status().json()


@app.get("/healthz")
async def healthz() -> dict:
    return {"ok": True}
