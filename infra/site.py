"""Builds the docs site into .labs/site: python infra/site.py. README, docs/, each lab's README with hints and debrief folded away, the coverage."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runner.checkout import all_lab_folders
from runner.hints import read_hints
from runner.listing import Row, read_rows
from runner.roadmap import all_leaves, find_topic

ROOT = Path(__file__).resolve().parent.parent
PAGES, SITE = ROOT / ".labs" / "site-pages", ROOT / ".labs" / "site"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
# Where a file of the checkout stands in the site.
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "infra/images/README.md": "docs/images.md",
}
STYLE = ".wy-table-responsive table td, .wy-table-responsive table th { white-space: normal; }\n"
SETTINGS = {
    "extra_css": ["wrap.css"],
    "site_name": "backend-labs",
    "theme": {"name": "readthedocs", "highlightjs": False},
    "plugins": [],
    "strict": True,
    "use_directory_urls": False,
    "markdown_extensions": ["tables", "fenced_code", "md_in_html", "sane_lists"],
    "validation": {"links": {"not_found": "warn", "anchors": "warn"}},
}


def main() -> int:
    """Lay out the pages and have mkdocs build them; its exit code."""
    shutil.rmtree(PAGES, ignore_errors=True)
    folders = all_lab_folders(ROOT)
    places = {**PLACES, **{f"docs/{file.name}": f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")}}
    places |= {f"{folder.relative_to(ROOT).as_posix()}/README.md": f"labs/{folder.name}.md" for folder in folders}
    for source, place in places.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        write_page(place, relink(text, source, places) + fold_away((ROOT / source).parent if place.startswith("labs/") else None))
    rows, _ = read_rows(ROOT)
    write_page("wrap.css", STYLE)
    write_page("coverage.md", describe_coverage(rows))
    settings = ROOT / ".labs" / "mkdocs.yml"
    settings.write_text(json.dumps({**SETTINGS, "docs_dir": str(PAGES), "site_dir": str(SITE), "nav": lay_out_nav(places, rows)}))  # JSON is YAML
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet", "--clean", "--config-file", str(settings)], check=False)
    if done.returncode == 0:
        print(f"built {os.path.relpath(SITE)}/index.html")
    return done.returncode


def write_page(place: str, text: str) -> None:
    """One page of the site."""
    path = PAGES / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def relink(text: str, source: str, places: dict[str, str]) -> str:
    """Links between files become links between pages; a link to what is no page becomes its text."""

    def replace(match: re.Match[str]) -> str:
        words, target = match.groups()
        path, hash_mark, anchor = target.partition("#")
        if "://" in target or not path:
            return match[0]
        wanted = os.path.normpath(PurePosixPath(source).parent / path)
        if wanted not in places:
            return words
        here = PurePosixPath(places[source]).parent
        return f"[{words}]({os.path.relpath(places[wanted], here)}{hash_mark}{anchor})"

    return LINK.sub(replace, text)


def fold_away(lab: Path | None) -> str:
    """A lab's hints, one by one, and its debrief, shown only when they are asked for."""
    if lab is None:
        return ""
    parts = [(f"Hint {number}", text) for number, text in read_hints((lab / "hints.md").read_text(encoding="utf-8"))]
    debrief = re.sub(r"^# .*\n", "", (lab / "debrief.md").read_text(encoding="utf-8"), count=1)
    # As headings they would stand in the contents beside the page.
    parts.append(("Debrief: after a pass, or it spoils the lab", re.sub(r"^#+ (.*)$", r"**\1**", debrief, flags=re.MULTILINE)))
    folded = [f'<details markdown="1"><summary>{title}</summary>\n\n{text}\n\n</details>\n' for title, text in parts]
    return "\n".join(["\n\n## Hints and debrief\n", *folded])


def describe_coverage(rows: Sequence[Row]) -> str:
    """The roadmap's leaves and the labs that cover them."""
    covering: dict[str, list[str]] = {}
    for row in rows:
        for leaf in row.covers:
            covering.setdefault(leaf, []).append(row.name)
    leaves = all_leaves()
    lines = ["# Coverage of the roadmap", "", f"{len(covering)} of {len(leaves)} leaves have a lab.", "", "| topic | leaf | labs |", "|---|---|---|"]
    for leaf in leaves:
        topic = find_topic(leaf.partition("/")[0])
        labs = ", ".join(f"[{name}](labs/{name}.md)" for name in covering.get(leaf, ()))
        lines.append(f"| {topic.title if topic else ''} | {leaf.partition('/')[2]} | {labs} |")
    return "\n".join(lines) + "\n"


def lay_out_nav(places: dict[str, str], rows: Sequence[Row]) -> list[dict[str, object]]:
    """The site's contents: the start, the labs in the roadmap's order, the rest."""
    docs = sorted(place for place in places.values() if place.startswith("docs/"))
    return [
        {"Start": "index.md"},
        {"Labs": [{row.title: f"labs/{row.name}.md"} for row in rows] + [{"Coverage": "coverage.md"}]},
        {"Docs": [{Path(place).stem.replace("-", " ").capitalize(): place} for place in docs]},
        {"Contributing": "contributing.md"},
        {"Changes": "changelog.md"},
    ]


if __name__ == "__main__":
    sys.exit(main())
