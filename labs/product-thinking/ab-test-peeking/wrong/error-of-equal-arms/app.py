# bug: takes the error of two equal arms, which is too small for uneven ones
"""An experiment platform: who gets which variant, and what the numbers say at each look."""

import hashlib
import math
from collections import Counter

from fastapi import FastAPI
from pydantic import BaseModel

FALSE_ALARMS = 0.05  # of the experiments without an effect, over all their looks
FALSE_FLAGS = 0.001  # of the healthy experiments, over all their looks
PRIOR = 15.0  # the mixture's variance, in squared standard errors of the last look: effects of some 4 of them are what we look for
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


def is_treated(experiment: str, user: str, share: float) -> bool:
    # The experiment is the salt: each one cuts the users anew, and every replica cuts them alike.
    digest = hashlib.blake2b(f"{experiment}/{user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def is_significant(z: float, elapsed: float, alpha: float) -> bool:
    """Whether the mixture likelihood ratio has reached 1/alpha: by Ville's inequality it ever does with a chance of at most alpha."""
    spread = PRIOR * elapsed
    return spread / (1 + spread) * z * z / 2 - math.log(1 + spread) / 2 >= math.log(1 / alpha)


def judge(look: Look | Log, users: list[int], effect: float, variance: float) -> str:
    """The verdict on an effect with the given variance."""
    elapsed, total, share = look.look / look.of, sum(users), look.share
    if total and is_significant((users[1] - share * total) / math.sqrt(total * share * (1 - share)), elapsed, FALSE_FLAGS):
        return "broken"
    if variance <= 0 or not is_significant(effect / math.sqrt(variance), elapsed, FALSE_ALARMS):
        return "undecided"
    return "better" if effect > 0 else "worse"


def judge_sums(look: Look) -> str:
    arms = (look.control, look.treatment)
    users = [arm.users for arm in arms]
    if not all(users):
        return judge(look, users, 0.0, 0.0)
    rates = [arm.buyers / arm.users for arm in arms]
    pooled = sum(arm.buyers for arm in arms) / sum(users)
    return judge(look, users, rates[1] - rates[0], pooled * (1 - pooled) * 4 / sum(users))


def count_events(log: Log) -> dict[str, dict[str, Counter[str]]]:
    """Views and clicks of each user of each arm, every event once."""
    counts: dict[str, dict[str, Counter[str]]] = {arm: {} for arm in ARMS}
    for _, user, arm, kind in {event[0]: event for event in log.events}.values():
        counts[arm].setdefault(user, Counter())[kind] += 1
    return counts


def measure(users: list[Counter[str]]) -> tuple[float, float]:
    """Clicks per view, and the variance of that, between users (the delta method): they are independent, their views are not."""
    views = sum(user["view"] for user in users)
    if not views:
        return 0.0, 0.0
    rate = sum(user["click"] for user in users) / views
    return rate, sum((user["click"] - rate * user["view"]) ** 2 for user in users) / views**2


@app.post("/assignments")
def assign(asked: Assignment) -> dict:
    return {"variants": [ARMS[is_treated(asked.experiment, user, asked.share)] for user in asked.users]}


@app.post("/looks")
def judge_looks(asked: Looks) -> dict:
    return {"verdicts": [judge_sums(look) for look in asked.looks]}


@app.post("/logs")
def judge_log(asked: Log) -> dict:
    arms = [list(users.values()) for users in count_events(asked).values()]
    (before, before_variance), (after, after_variance) = (measure(users) for users in arms)
    verdict = judge(asked, [len(users) for users in arms], after - before, before_variance + after_variance)
    counts = ({"users": len(users), "views": sum(u["view"] for u in users), "clicks": sum(u["click"] for u in users)} for users in arms)
    return {"verdict": verdict, **dict(zip(ARMS, counts, strict=True))}


@app.get("/healthz")
def healthz() -> dict:
    return {"ok": True}
