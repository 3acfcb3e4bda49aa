"""The roadmap: stages, topics and leaves that labs cover."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Topic:
    """One of the 16 topics."""

    stage: int
    id: str
    title: str
    leaves: tuple[str, ...]


@cache
def read_roadmap() -> tuple[Topic, ...]:
    """All topics, in the order of the roadmap."""
    data = tomllib.loads(Path(__file__).with_name("roadmap.toml").read_text())
    return tuple(Topic(t["stage"], t["id"], t["title"], tuple(t["leaves"])) for t in data["topic"])


def all_leaves() -> list[str]:
    """Every leaf as `topic/leaf`."""
    return [f"{topic.id}/{leaf}" for topic in read_roadmap() for leaf in topic.leaves]
