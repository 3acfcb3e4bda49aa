"""What the pages show, read from disk each time: the roadmap with the labs on it, and a lab with its texts, hints and last runs."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from runner.attempt import show_solution
from runner.checkout import find_root
from runner.guidance import choose_next
from runner.hints import read_hints
from runner.lab import Lab, my_folder
from runner.listing import Row, make_row, read_rows
from runner.progress import Standing, read_progress
from runner.roadmap import Topic, all_leaves, count_covered, read_roadmap
from runner.ui.conductor import Conductor
from runner.ui.prose import render

RUNS_SHOWN = 6
MARKS = {"new": "\N{WHITE CIRCLE}", "started": "\N{CIRCLE WITH LEFT HALF BLACK}", "failed": "\N{MULTIPLICATION SIGN}", "passed": "\N{CHECK MARK}"}
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Place:
    """A topic on the map, with its labs and, for each leaf that has one, a lab: a passed one where there is such."""

    topic: Topic
    rows: Sequence[Row]
    covered: Mapping[str, Row]


def draw(template: str, **values: object) -> str:
    """A page."""
    return TEMPLATES.get_template(template).render(marks=MARKS, **values)


def draw_map(conductor: Conductor) -> str:
    """The roadmap: its stages, their topics, the labs there, and where the learner stands."""
    rows, broken = read_rows(find_root())
    topics = read_roadmap()
    passed = [row for row in rows if row.state == "passed"]
    places = [Place(topic, [row for row in rows if row.topic == topic.id], leaves_of(topic, rows)) for topic in topics]
    stages = {stage: [place for place in places if place.topic.stage == stage] for stage in sorted({topic.stage for topic in topics})}
    counts = {"labs": len(rows), "passed": len(passed), "leaves": len(all_leaves()), "covered": count_covered(row.covers for row in rows)}
    elsewhere = [row for row in rows if row.topic not in {topic.id for topic in topics}]
    return draw(
        "map.html",
        stages=stages,
        elsewhere=elsewhere,
        broken=broken,
        counts=counts,
        next=choose_next(rows),
        running=conductor.current if conductor.is_busy else None,
    )


def leaves_of(topic: Topic, rows: Sequence[Row]) -> dict[str, Row]:
    """The leaves of a topic that labs cover, wherever these lie, and the lab of each."""
    passed_first = sorted(rows, key=lambda row: row.state != "passed")
    covering = {leaf: [row for row in passed_first if f"{topic.id}/{leaf}" in row.covers] for leaf in topic.leaves}
    return {leaf: found[0] for leaf, found in covering.items() if found}


def draw_lab(lab: Lab, conductor: Conductor) -> str:
    """A lab: the incident and its contract, the hints taken, the runs. The debrief and the solution after a pass."""
    root = find_root()
    standing = read_progress().get(lab.name, Standing())
    hints = read_hints(lab.text_of("hints.md"))
    has_passed = standing.state == "passed"
    live = conductor.current if conductor.current is not None and conductor.current.lab == lab.name else None
    return draw(
        "lab.html",
        lab=lab,
        row=make_row(root, lab.folder, standing),
        readme=render(lab.text_of("README.md")),
        hints=[(number, render(text)) for number, text in hints[: standing.hints]],
        hint_count=len(hints),
        has_passed=has_passed,
        debrief=render(lab.text_of("debrief.md")) if has_passed else Markup(),
        solution=show_solution(lab, anyway=False) if has_passed else "",
        choices=choices(has_passed=has_passed),
        mine=my_folder(lab).relative_to(root).as_posix(),
        has_mine=my_folder(lab).is_dir(),
        live=live,
        running=conductor.current if conductor.is_busy else None,
        runs=last_runs(root, lab.name),
    )


def choices(*, has_passed: bool) -> list[str]:
    """What a page may run."""
    return ["starter", "mine", *(["solution"] if has_passed else [])]


def last_runs(root: Path, name: str) -> list[dict[str, Any]]:
    """The last runs of a lab that came to a verdict, the newest first."""
    is_ours = re.compile(rf"\d{{8}}-\d{{6}}-{re.escape(name)}(-\d+)?")
    found: list[dict[str, Any]] = []
    for folder in sorted((f for f in (root / ".labs" / "runs").glob(f"*-{name}*") if is_ours.fullmatch(f.name)), reverse=True):
        if len(found) == RUNS_SHOWN:
            break
        try:
            report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            when = f"{folder.name[:4]}-{folder.name[4:6]}-{folder.name[6:8]} {folder.name[9:11]}:{folder.name[11:13]}"
            has_page = (folder / "report.html").is_file()
            found.append({"id": folder.name, "when": when, "verdict": report["verdict"], "submission": report["submission"], "has_page": has_page})
        except (OSError, ValueError, KeyError):
            continue  # under way, stopped, or of another kit
    return found
