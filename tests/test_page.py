"""What a run's page holds. How it looks is shown in tests/browser."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.errors import LabError
from runner.history import Record
from runner.page import FACTS, find_focus, read_run, render
from runner.timeline import draw_timeline, percentile

if TYPE_CHECKING:
    from conftest import Kit


def record(n: int, at_s: float, status: int | None = 200, **context: Any) -> Record:
    start_ns = int(at_s * 1e9)
    return Record(n, 0, "/x", "GET", "/x", 1, start_ns, start_ns + 10_000_000, status=status, context=context)


def test_percentiles() -> None:
    assert percentile([], 50) is None
    assert percentile([3.0], 99) == 3.0
    assert percentile([float(n) for n in range(101)], 95) == 95.0
    assert percentile([0.0, 0.0], 50) == 0.1, "a logarithm has no 0"


def test_rates_count_every_request_once() -> None:
    records = [record(n, n * 0.1, 503 if n == 5 else 200) for n in range(20)]
    series = draw_timeline(records, 0)
    assert sum(series["ok"]) * 0.25 == 19
    assert sum(series["unknown"]) * 0.25 == 1
    assert len(series["t"]) == len(series["ok"])


@pytest.mark.parametrize(
    ("seen", "focus"),
    [
        ("product 7010: 9 loads in 3 expiries", ("key", "7010")),
        ("order-12: version 3 before 2", ("order", "order-12")),
        ("product 70100: 9 loads", None),
        ("nothing of the kind", None),
    ],
)
def test_the_offending_key_is_what_the_message_names(seen: str, focus: tuple[str, str] | None) -> None:
    records = [record(1, 0, key="9999"), record(2, 0, key="7010", hot=True), record(3, 0, order="order-12")]
    assert find_focus(seen, records) == focus


def test_no_text_of_a_run_is_taken_for_html() -> None:
    run = {"verdict": "FAIL", "lab": "<x>", "submission": "</title>"}
    text = render([run])
    assert "<title>FAIL &lt;x> &lt;/title></title>" in text
    (data,) = re.findall(r'<script id="runs" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert "<" not in data
    assert json.loads(data) == [run]


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="is no run's folder"):
        read_run(tmp_path, "")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", "null", '{"lab": "hits"}'])
def test_what_is_no_report_of_a_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(LabError, match="is no run's folder"):
        read_run(tmp_path, "")


def test_a_ledger_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    check = {"name": "test_a", "outcome": "FAIL", "blame": "", "seen": "key 7010: 9 loads", "comparisons": []}
    report = {**dict.fromkeys(FACTS, ""), "checks": [check], "events": []}
    (tmp_path / "report.json").write_text(json.dumps(report))
    row = {"n": 1, "user": 1, "name": "/", "method": "GET", "path": "/", "start_ns": 1, "end_ns": 2, "status": 200, "context": {"key": "7010"}}
    (tmp_path / "history.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "catalog-calls.json").write_text('[{"n": 1, "key": "70')
    assert [table["title"] for table in read_run(tmp_path, "")["tables"]] == ["Requests for key 7010"]


def test_every_run_leaves_a_page_and_two_can_be_compared(kit: "Kit") -> None:
    assert kit.labs("compare").returncode == 3, "there is nothing to compare yet"
    for submission in ("starter", "solution"):
        kit.labs("run", "hits", f"--submission={submission}")
    pages = list((kit.root / ".labs" / "runs").glob("*/report.html"))
    assert len(pages) == 2
    done = kit.labs("compare")
    assert done.returncode == 0, done.stderr
    assert ".labs/compare.html, for a browser" in done.stdout
    text = (kit.root / ".labs" / "compare.html").read_text()
    assert "<title>FAIL hits starter and PASS hits solution</title>" in text
    names = [page.parent.name for page in pages]
    assert kit.labs("compare", names[1], str(pages[0].parent)).returncode == 0
    assert kit.labs("compare", names[0]).returncode == 3
    assert kit.labs("compare", names[0], "no-such-run").returncode == 3
    elsewhere = kit.root / "elsewhere"
    (kit.root / ".labs").rename(elsewhere)
    kept = [str(elsewhere / "runs" / name) for name in names]
    assert kit.labs("compare", *kept).returncode == 0, "a .labs/ is made when there is none"
