"""A report as it is stored, and as a person reads it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.report import Report, new_run_folder, print_verdict, write_report
from runner.verdict import CheckResult, Comparison, Outcome, decide_verdict

PASS, FAIL, INCONCLUSIVE, ERROR = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.ERROR
COUNTED = CheckResult("test_every_hit_is_counted", FAIL, "Every hit is counted.", "it is read, then written.", "3 of 4\nthe last was lost")
STORM = CheckResult("test_the_storm_is_survived", INCONCLUSIVE, "A storm does no harm.", "it does.", "no storm came")
FINE = CheckResult("test_it_serves", PASS)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    (tmp_path / "labs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv("LABS_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def make_report(*checks: CheckResult, **values: Any) -> Report:
        report = Report(
            lab="hits",
            submission="starter",
            kind="starter",
            backend="embedded",
            seed=7,
            folder=tmp_path / "run",
            verdict=decide_verdict(checks),
            seconds=2.34567,
            load_s=1.5,
            incident_s=1.5,
            requests=20,
            unanswered=2,
            longest_stall_s=0.0123456,
            cpu_wait_share=0.1,
            events=[{"at_ns": 5, "what": "killed app-1"}],
        )
        report.folder.mkdir(exist_ok=True)
        return replace(report, **values)

    return make_report


Make = Callable[..., Report]


def printed(report: Report) -> str:
    lines: list[str] = []
    print_verdict(report, lines.append)
    return "\n".join(lines)


def test_a_failed_check_shows_promised_seen_and_why(make: Make) -> None:
    assert (
        printed(make(COUNTED, FINE))
        == """\
FAIL  hits   starter   embedded   seed 7
  x every hit is counted
      promised  Every hit is counted.
      seen      3 of 4
                the last was lost
      why       it is read, then written.
      look at   run/report.html
  ok it serves
  20 requests, 2 without an answer, 1.5 s of load, 2.3 s in all"""
    )


def test_a_pass_is_short(make: Make) -> None:
    assert (
        printed(make(FINE))
        == """\
PASS  hits   starter   embedded   seed 7
  ok it serves
  20 requests, 2 without an answer, 1.5 s of load, 2.3 s in all"""
    )


def test_an_inconclusive_check_blames_nothing(make: Make) -> None:
    text = printed(make(STORM))
    assert text.startswith("INCONCLUSIVE  hits")
    assert "  ? the storm is survived\n      promised  A storm does no harm.\n      seen      no storm came\n" in text
    assert "why" not in text


@pytest.mark.parametrize(
    ("outcome", "blame", "head"),
    [
        (FAIL, "app", "x the app did not hold up"),
        (ERROR, "lab", "! the lab is broken"),
        (ERROR, "machine", "! the machine or the kit is in the way"),
    ],
)
def test_a_problem_is_told_once_and_not_as_a_failed_check(make: Make, outcome: Outcome, blame: str, head: str) -> None:
    """All checks of a run fail with it; a person reads it once."""
    problem = CheckResult("test_a", outcome, "Promised.", "why", "app-1 ended\n  | its last words", "mend it", blame)
    text = printed(make(problem, replace(problem, name="test_b")))
    assert text.count(head) == text.count("its last words") == text.count("hint: mend it") == 1
    assert "promised" not in text
    assert "Promised." not in text


def test_a_message_that_is_missing_is_said(make: Make) -> None:
    assert "seen      (no message)" in printed(make(replace(COUNTED, seen="")))


def test_many_passed_checks_share_lines(make: Make) -> None:
    lines = printed(make(*(CheckResult(f"test_number_{n}_of_many_checks", PASS) for n in range(12)))).splitlines()
    assert sum("ok number" in line for line in lines) < 6
    assert max(map(len, lines)) < 120


def test_the_stored_form(make: Make) -> None:
    report = make(replace(COUNTED, comparisons=(Comparison("hits", 3, 4, is_upper=False),), seconds=0.12345), FINE)
    write_report(report)
    data = json.loads((report.folder / "report.json").read_text())
    assert data["schema"] == 1
    assert (data["verdict"], data["lab"], data["submission"], data["seed"], data["backend"]) == ("FAIL", "hits", "starter", 7, "embedded")
    assert (data["requests"], data["unanswered"], data["load_s"], data["seconds"]) == (20, 2, 1.5, 2.346)
    assert data["events"] == [{"at_ns": 5, "what": "killed app-1"}]
    assert data["checks"][0] == {
        "name": "test_every_hit_is_counted",
        "outcome": "FAIL",
        "promised": "Every hit is counted.",
        "seen": "3 of 4\nthe last was lost",
        "why": "it is read, then written.",
        "hint": "",
        "blame": "",
        "seconds": 0.123,
        "comparisons": [{"what": "hits", "value": 3, "limit": 4, "is_upper": False, "margin": 0.75}],
    }
    assert [check["outcome"] for check in data["checks"]] == ["FAIL", "PASS"]
    assert [path.name for path in report.folder.iterdir()] == ["report.json"], "no half-written file stays"


def test_an_endless_margin_is_null(make: Make) -> None:
    report = make(replace(FINE, comparisons=(Comparison("errors", 0, 4, is_upper=True),)))
    text = json.dumps(report.as_json(), allow_nan=False)
    assert json.loads(text)["checks"][0]["comparisons"][0]["margin"] is None


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_value_beyond_all_measure_can_be_stored(make: Make, value: float) -> None:
    report = make(replace(FINE, comparisons=(Comparison("ratio", value, 4, is_upper=True),)))
    stored = json.loads(json.dumps(report.as_json(), allow_nan=False))["checks"][0]["comparisons"][0]["value"]
    assert abs(stored) == 1e300


def test_run_folders_never_meet(make: Make, tmp_path: Path) -> None:
    folders = [new_run_folder("hits") for _ in range(20)]
    assert len(set(folders)) == 20
    assert all(folder.is_dir() and folder.parent == tmp_path / ".labs" / "runs" and "-hits" in folder.name for folder in folders)
