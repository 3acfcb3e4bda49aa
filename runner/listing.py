"""`labs list`: the labs by stage and topic, and where the learner stands."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from runner.checkout import all_lab_folders, shown_path
from runner.errors import LabError
from runner.progress import Standing, read_progress
from runner.roadmap import all_leaves, count_covered, find_topic

VERSION = 1


@dataclass(frozen=True)
class Row:
    """One lab of the list."""

    name: str
    topic: str
    stage: int | None
    title: str
    difficulty: int
    minutes: int
    services: list[str]
    covers: list[str]
    state: str
    hints: int


def list_labs(root: Path, *, as_json: bool = False) -> str:
    """All labs as text for a terminal, or as JSON. A broken lab is named, and hides no other."""
    rows, broken = read_rows(root)
    if as_json:
        roadmap = {"leaves": len(all_leaves()), "covered": sorted({leaf for row in rows for leaf in row.covers})}
        labs = [asdict(row) for row in rows]
        return json.dumps({"version": VERSION, "labs": labs, "broken": broken, "roadmap": roadmap}, indent=1)
    lines = draw_rows(rows) or ["There are no labs yet."]
    for problem in broken.values():
        lines += ["", f"broken: {problem}"]
    covered = count_covered(row.covers for row in rows)
    passed = count_covered(row.covers for row in rows if row.state == "passed")
    lines += ["", f"roadmap: {covered} of its {len(all_leaves())} leaves have a lab, {passed} you have passed"]
    return "\n".join(lines)


def read_rows(root: Path) -> tuple[list[Row], dict[str, str]]:
    """The labs, and for each broken one what is wrong with it."""
    progress = read_progress(root)
    rows: list[Row] = []
    broken: dict[str, str] = {}
    for folder in all_lab_folders(root):
        try:
            rows.append(make_row(root, folder, progress.get(folder.name, Standing())))
        except LabError as error:
            broken[folder.name] = str(error)
    return rows, broken


def make_row(root: Path, folder: Path, standing: Standing) -> Row:
    """A lab and the learner's standing in it. Raises LabError when lab.toml is broken.

    It takes its few fields straight from the file: the model of lab.py takes longer than the whole list may.
    """
    try:
        data = tomllib.loads((folder / "lab.toml").read_text(encoding="utf-8"))
        topic = find_topic(folder.parent.name)
        return Row(
            name=folder.name,
            topic=folder.parent.name,
            stage=topic.stage if topic else None,
            title=str(data["title"]),
            difficulty=int(data["difficulty"]),
            minutes=int(data["minutes"]),
            services=[str(service) for service in data.get("services", [])],
            covers=[str(leaf) for leaf in data["covers"]],
            state="started" if standing.state == "new" and (root / "my" / folder.name).is_dir() else standing.state,
            hints=standing.hints,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        from runner.lab import read_lab

        read_lab(folder)
        raise LabError(f"{shown_path(folder)}/lab.toml is broken: {error!r}") from error


def draw_rows(rows: Sequence[Row]) -> list[str]:
    """A heading a topic, a line a lab."""
    names = max((len(row.name) for row in rows), default=0)
    services = max((len(", ".join(row.services)) for row in rows), default=0)
    lines: list[str] = []
    for topic_id, group in groupby(rows, lambda row: row.topic):
        topic = find_topic(topic_id)
        lines += ["", f"Stage {topic.stage}  {topic.title}" if topic else f"Off the roadmap  {topic_id}"]
        for row in group:
            used = ", ".join(row.services) or "-"
            hints = f"{row.hints} hint{'s' * (row.hints > 1)} taken" if row.hints else ""
            line = f"  {row.name:<{names}}  {row.difficulty}/5  {row.minutes:>3} min  {used:<{services}}  {row.state:<7}  {hints}"
            lines.append(line.rstrip())
    return lines[1:]
