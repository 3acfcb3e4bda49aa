"""An experiment platform: who gets which variant, and what the numbers say at each look."""

import math
import random
from collections import Counter
from statistics import NormalDist

from fastapi import FastAPI
from pydantic import BaseModel

SIGNIFICANT = 0.05
ARMS = ("control", "treatment")

app = FastAPI()


class Assignment(BaseModel):
    experiment: str
    share: float
    users: list[str]


class Sums(BaseModel):
    users: int
    buyers: int


class Look(BaseModel):
    experiment: str
    look: int
    of: int
    share: float
    control: Sums
    treatment: Sums


class Looks(BaseModel):
    looks: list[Look]


class Log(BaseModel):
    experiment: str
    look: int
    of: int
    share: float
    events: list[tuple[str, str, str, str]]


def judge(effect: float, variance: float) -> str:
    """The verdict on an effect with the given variance: a z-test."""
    if variance <= 0 or 2 * NormalDist().cdf(-abs(effect) / math.sqrt(variance)) >= SIGNIFICANT:
        return "undecided"
    return "better" if effect > 0 else "worse"


def judge_sums(look: Look) -> str:
    arms = (look.control, look.treatment)
    users = [arm.users for arm in arms]
    if not all(users):
        return "undecided"
    rates = [arm.buyers / arm.users for arm in arms]
    pooled = sum(arm.buyers for arm in arms) / sum(users)
    return judge(rates[1] - rates[0], pooled * (1 - pooled) * (1 / users[0] + 1 / users[1]))


def count_events(log: Log, arm: str) -> dict[str, int]:
    events = Counter(kind for _, _, of, kind in log.events if of == arm)
    return {"users": len({user for _, user, of, _ in log.events if of == arm}), "views": events["view"], "clicks": events["click"]}


def measure(counts: dict[str, int]) -> tuple[float, float]:
    """Clicks per view, and the variance of that."""
    if not counts["views"]:
        return 0.0, 0.0
    rate = min(counts["clicks"] / counts["views"], 1.0)
    return rate, rate * (1 - rate) / counts["views"]


@app.post("/assignments")
def assign(asked: Assignment) -> dict:
    return {"variants": [ARMS[random.random() < asked.share] for _ in asked.users]}


@app.post("/looks")
def judge_looks(asked: Looks) -> dict:
    return {"verdicts": [judge_sums(look) for look in asked.looks]}


@app.post("/logs")
def judge_log(asked: Log) -> dict:
    counts = {arm: count_events(asked, arm) for arm in ARMS}
    (before, before_variance), (after, after_variance) = map(measure, counts.values())
    return {"verdict": judge(after - before, before_variance + after_variance), **counts}


@app.get("/healthz")
def healthz() -> dict:
    return {"ok": True}
