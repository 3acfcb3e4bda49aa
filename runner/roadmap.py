"""The roadmap: four stages of topics, and the leaves that labs cover."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Topic:
    """One topic of a stage, with its leaves."""

    stage: int
    id: str
    title: str
    leaves: tuple[str, ...]


@cache
def read_roadmap() -> tuple[Topic, ...]:
    """All topics, in the order of the roadmap."""
    data = tomllib.loads(Path(__file__).with_name("roadmap.toml").read_text(encoding="utf-8"))
    return tuple(Topic(t["stage"], t["id"], t["title"], tuple(t["leaves"])) for t in data["topic"])


@cache
def all_leaves() -> tuple[str, ...]:
    """Every leaf as `topic/leaf`."""
    return tuple(f"{topic.id}/{leaf}" for topic in read_roadmap() for leaf in topic.leaves)


def find_topic(topic_id: str) -> Topic | None:
    """The topic with this id."""
    return next((topic for topic in read_roadmap() if topic.id == topic_id), None)


def count_covered(covers: Iterable[Iterable[str]]) -> int:
    """How many leaves are covered by the `covers` of some labs."""
    return len({leaf for leaves in covers for leaf in leaves} & set(all_leaves()))
