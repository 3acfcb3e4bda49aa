"""The pages in a real browser: charts have marks, nothing is written to the console, nothing is fetched."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from runner.page import compare, write_page


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run as the kit leaves it: four hundred requests, a fault, a failed check that names a key, what the server counted."""
    folder = tmp_path / "run"
    folder.mkdir()
    start = 10**12
    rows = []
    for n in range(400):
        at = start + n * 20_000_000
        status = 503 if 150 < n < 200 else 429 if n % 50 == 0 else 200
        rows.append(
            {
                "n": n,
                "user": n % 7,
                "name": "/x",
                "method": "GET",
                "path": f"/x/{n % 3 + 500}",
                "replica": n % 2 + 1,
                "start_ns": at,
                "end_ns": at + (5 + n % 40) * 1_000_000,
                "status": status,
                "failed": "status 429" if status == 429 else None,
                "context": {"key": str(n % 3 + 500)},
                "body": {"price": n, "note": "<b>not bold</b>"},
            }
        )
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "app-1.log").write_text("</script><script>document.title = 'taken'</script>\n")
    calls = [{"n": 1, "replica": "app-1", "method": "GET", "path": "/p", "start_ns": start, "end_ns": start + 10**8, "status": 200, "key": "501"}]
    (folder / "catalog-calls.json").write_text(json.dumps(calls))
    samples = [{"at_ns": start + n * 250_000_000, "commands": n * n, "clients": 3 + n % 4, "clients that wait": n % 3} for n in range(32)]
    (folder / "counters.json").write_text(json.dumps({"redis": samples}))
    check = {"promised": "It holds.", "why": "it may not", "hint": "", "blame": "", "seconds": 0.1}
    value = {"what": "loads", "value": 9.0, "limit": 2.0, "is_upper": True, "margin": 0.2}
    checks = [
        {**check, "name": "test_a", "outcome": "PASS", "seen": "", "comparisons": []},
        {**check, "name": "test_b", "outcome": "FAIL", "seen": "product 501: 9 loads", "comparisons": [value]},
    ]
    report = {"lab": "shop", "submission": "starter", "backend": "embedded", "seed": 7, "verdict": "FAIL", "requests": 400, "unanswered": 0}
    report |= {"load_s": 8.0, "seconds": 9.5, "checks": checks, "events": [{"at_ns": start + 3 * 10**9, "what": "killed <app-1>"}]}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def open_page(browser: Browser, shots: Path, file: Path, *, width: int = 1200, scheme: str = "light") -> Page:
    """Open a file; whatever the console says or the page asks of a network fails the test."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light")
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
    page.goto(file.as_uri())
    page.wait_for_function("document.querySelectorAll('canvas').length > 0")
    assert said == []
    page.screenshot(path=str(shots / f"{file.stem}-{width}-{scheme}.png"), full_page=True)
    return page


@pytest.mark.parametrize("width", [420, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report(browser: Browser, shots: Path, colours_of: Callable[[Locator], int], run_folder: Path, width: int, scheme: str) -> None:
    page = open_page(browser, shots, write_page(run_folder, "Shop"), width=width, scheme=scheme)
    assert page.title() == "FAIL shop starter"
    assert "FAIL shop: Shop" in page.locator("h1").inner_text()
    assert page.locator(".check").first.inner_text().startswith("FAIL"), "what failed comes first"
    charts = page.locator("canvas")
    assert charts.count() == 4
    for number in range(4):
        assert colours_of(charts.nth(number)) > 20, "lines or points, axes and marks are drawn"
    assert "killed <app-1>" in page.locator(".marks").inner_text()
    headings = page.locator("h2").all_inner_texts()
    assert headings == ["Promises", "Timeline", "Servers", "Requests for key 501", "Calls at the catalog for key 501", "Logs"]
    assert page.locator("h3").all_inner_texts() == ["redis, a second", "redis, at a time"]
    assert "<b>not bold</b>" in page.locator("table").first.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page does not scroll sideways"
    page.close()


def test_two_runs_side_by_side(browser: Browser, shots: Path, run_folder: Path, tmp_path: Path) -> None:
    compare(run_folder, run_folder, {"shop": "Shop"}, tmp_path / "compare.html")
    page = open_page(browser, shots, tmp_path / "compare.html")
    first, second = page.locator("article").all()
    boxes = first.bounding_box(), second.bounding_box()
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert page.locator("canvas").count() == 8
    page.close()
