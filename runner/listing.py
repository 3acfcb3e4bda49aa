"""`labs list`: the labs by stage and topic, and where the learner stands."""

import json
from pathlib import Path
from typing import Any

from runner.lab import all_labs
from runner.progress import read_progress
from runner.roadmap import all_leaves, read_roadmap

MARKS = {"new": " ", "started": ".", "failed": "x", "passed": "*"}


def list_labs(root: Path, *, as_json: bool) -> str:
    """All labs as text for a terminal, or as JSON."""
    progress = read_progress(root)
    rows: list[dict[str, Any]] = []
    for lab in all_labs(root):
        stage = next((t.stage for t in read_roadmap() if t.id == lab.topic), 0)
        state = progress.get(lab.name, {}).get("state") or ("started" if (root / "my" / lab.name).exists() else "new")
        rows.append(
            {
                "name": lab.name,
                "topic": lab.topic,
                "stage": stage,
                "title": lab.title,
                "difficulty": lab.difficulty,
                "minutes": lab.minutes,
                "services": list(lab.services),
                "covers": list(lab.covers),
                "state": state,
            }
        )
    leaves = all_leaves()
    covered = {leaf for row in rows for leaf in row["covers"]}
    if as_json:
        return json.dumps({"version": 1, "labs": rows, "leaves": len(leaves), "covered": sorted(covered)}, indent=1)
    lines: list[str] = []
    for topic in read_roadmap():
        mine = [row for row in rows if row["topic"] == topic.id]
        if mine:
            lines += ["", f"Stage {topic.stage}  {topic.title}"]
            lines += [
                f"  {MARKS[r['state']]} {r['name']:<20} {'#' * r['difficulty']:<5}  {r['minutes']:>3} min  {', '.join(r['services']) or '-':<14} {r['title']}"
                for r in mine
            ]
    lines += ["", f"{len(covered)} of the roadmap's {len(leaves)} leaves are covered.   . started   x failed   * passed   # difficulty"]
    lines.append("next: `make lab NAME=...` runs one")
    return "\n".join(lines[1:])
