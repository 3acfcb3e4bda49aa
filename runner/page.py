"""The page of a run: verdict, timeline, the requests behind the first failure, logs. One file, which needs no network."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.counters import read_counters
from runner.errors import LabError
from runner.history import History, Record
from runner.timeline import draw_timeline
from runner.verdict import CheckResult, Outcome

ASSETS = Path(__file__).parent / "assets"
LOG_BYTES = 16 << 10
ROWS = 300
FACTS = ("lab", "submission", "backend", "seed", "verdict", "requests", "unanswered", "load_s", "seconds")  # of report.json, as they are
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main></main>
<script id="runs" type="application/json">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def write_page(folder: Path, title: str) -> Path:
    """`report.html` in a run's folder, from what lies there. Raises LabError when no run is there."""
    path = folder / "report.html"
    path.write_text(render([read_run(folder, title)]), encoding="utf-8")
    return path


def compare(one: Path, other: Path, titles: Mapping[str, str], output: Path) -> None:
    """A page with two runs side by side. Raises LabError when either is no run."""
    runs = [read_run(folder, titles.get(read_report(folder)["lab"], "")) for folder in (one, other)]
    output.write_text(render(runs), encoding="utf-8")


def render(runs: Sequence[Mapping[str, Any]]) -> str:
    """The page: data, style and script in one."""
    style = (ASSETS / "uPlot.min.css").read_text() + (ASSETS / "report.css").read_text()
    script = (ASSETS / "uPlot.iife.min.js").read_text() + "\n" + (ASSETS / "report.js").read_text()
    data = json.dumps(runs, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    title = " and ".join(f"{run['verdict']} {run['lab']} {run['submission']}" for run in runs)
    escaped = title.replace("&", "&amp;").replace("<", "&lt;")
    return PAGE.format(title=escaped, style=style, data=data, script=script)


def read_report(folder: Path) -> dict[str, Any]:
    """A run's report.json. Raises LabError."""
    try:
        report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if missing := [key for key in (*FACTS, "checks", "events") if key not in report]:
            raise ValueError(f"its report.json has no {missing[0]!r}")  # noqa: TRY301 - told like all else below
    except (OSError, ValueError, TypeError) as error:
        raise LabError(f"{folder} is no run's folder: {error}", "runs lie in .labs/runs/, each with a report.json") from error
    return report


def read_run(folder: Path, title: str) -> dict[str, Any]:
    """What the page shows of a run."""
    report = read_report(folder)
    records = sorted((r for file in sorted(folder.glob("history*.jsonl")) for r in History.read(file).records), key=lambda r: r.start_ns)
    start_ns = records[0].start_ns if records else 0
    marks = [{"t": (event["at_ns"] - start_ns) / 1e9, "what": event["what"]} for event in report["events"] if event["at_ns"] >= start_ns > 0]
    ends = [(r.end_ns - start_ns) / 1e9 for r in records] + [mark["t"] for mark in marks]
    return {
        **{key: report[key] for key in FACTS},
        "title": title,
        "when": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((folder / "report.json").stat().st_mtime)),
        "checks": [{**check, "title": CheckResult(check["name"], Outcome.PASS).title} for check in report["checks"]],
        "marks": marks,
        "until_s": max(ends, default=1.0),
        "timeline": draw_timeline(records, start_ns),
        "counters": read_counters(folder, start_ns),
        "tables": tables(report, records, start_ns, folder),
        "logs": read_logs(folder),
    }


def tables(report: Mapping[str, Any], records: Sequence[Record], start_ns: int, folder: Path) -> list[dict[str, Any]]:
    """The requests, and the calls at each peer, that concern what the first failed check names."""
    failed = next((check for check in report["checks"] if check["outcome"] == "FAIL" and not check["blame"]), None)
    focus = find_focus(failed["seen"], records) if failed else None
    if focus is None:
        return []
    name, value = focus
    mine = [r for r in records if r.context.get(name) == value]
    rows = [
        [f"{(r.start_ns - start_ns) / 1e9:.3f}", f"{r.latency_s * 1000:.0f}", r.status, r.user, r.replica, r.method, r.path, shorten(r.body)]
        for r in mine[:ROWS]
    ]
    title = f"Requests for {name} {value}"
    columns = ["s", "ms", "status", "user", "replica", "method", "path", "answer"]
    found = [{"title": title, "note": count_note(len(mine)), "columns": columns, "rows": rows}]
    for file in sorted(folder.glob("*-calls.json")):
        try:
            told = json.loads(file.read_text())
        except ValueError:  # cut off by a full disk
            continue
        calls = [call for call in told if value in call.values()]
        if calls:
            found.append(call_table(file.name.removesuffix("-calls.json"), calls, name, value, start_ns))
    return found


def call_table(peer: str, calls: Sequence[Mapping[str, Any]], name: str, value: object, start_ns: int) -> dict[str, Any]:
    """What a peer saw that concerns one value."""
    rows = [
        [
            f"{(call['start_ns'] - start_ns) / 1e9:.3f}",
            f"{(call['end_ns'] - call['start_ns']) / 1e6:.0f}" if call["end_ns"] else None,
            call["status"],
            call["replica"],
            call["method"],
            call["path"],
        ]
        for call in calls[:ROWS]
    ]
    return {
        "title": f"Calls at the {peer} for {name} {value}",
        "note": count_note(len(calls)),
        "columns": ["s", "ms", "status", "from", "method", "path"],
        "rows": rows,
    }


def count_note(count: int) -> str:
    """How many there are, and whether all are shown."""
    return f"{count} in all" + (f", the first {ROWS} are shown" if count > ROWS else "")


def find_focus(seen: str, records: Sequence[Record]) -> tuple[str, object] | None:
    """The part of the requests' context that a check's message names as a word: (`key`, `7010`); None when it names none."""
    words = set(re.findall(r"[\w.-]+", seen))
    for record in records:
        for name, value in record.context.items():
            if isinstance(value, str | int) and not isinstance(value, bool) and len(str(value)) > 2 and str(value) in words:
                return name, value
    return None


def shorten(body: object) -> str:
    """An answer in a line."""
    text = "" if body is None else json.dumps(body)
    return text if len(text) <= 120 else text[:117] + "..."


def read_logs(folder: Path) -> list[dict[str, Any]]:
    """The end of each log that holds anything."""
    found = []
    for file in sorted(folder.glob("*.log")):
        data = file.read_bytes()
        if data:
            text = data[-LOG_BYTES:].decode(errors="replace")
            found.append({"name": file.name, "bytes": len(data), "is_cut": len(data) > LOG_BYTES, "text": text})
    return found
