"""Hints, and the progress that remembers them."""

import json
import threading
from pathlib import Path

import pytest

from runner.errors import LabError
from runner.hints import next_hint, read_hints
from runner.lab import Lab, find_lab
from runner.progress import Standing, read_progress, record_hints, record_state
from runner.template import create

HINTS = """\
# Hints

## Hint 1

Look at the clock.

## Hint 2: the idea

A lease.
### not a hint
Two lines.

## Hint 3

Write it down.
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "labs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv("LABS_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def leases(root: Path) -> Lab:
    create(root, "middleware/leases")
    (root / "labs/middleware/leases/hints.md").write_text(HINTS)
    return find_lab("leases")


def test_hints_are_what_stands_under_their_headings() -> None:
    assert read_hints(HINTS) == [(1, "Look at the clock."), (2, "A lease.\n### not a hint\nTwo lines."), (3, "Write it down.")]
    assert read_hints("# nothing here") == []


def test_each_call_shows_the_next_and_the_last_stays(leases: Lab) -> None:
    shown = [next_hint(leases) for _ in range(4)]
    assert [text.splitlines()[0] for text in shown] == [
        "Hint 1 of 3 for leases",
        "Hint 2 of 3 for leases",
        "Hint 3 of 3 for leases",
        "Hint 3 of 3 for leases",
    ]
    assert "Look at the clock." in shown[0]
    assert shown[1].endswith("next: make hint NAME=leases, for a plainer one")
    assert shown[2].endswith("That was the last hint.")
    assert shown[3].endswith("That was the last hint, again: there is no other.")
    assert "Write it down." in shown[3]


def test_reset_begins_anew_and_keeps_the_state(leases: Lab) -> None:
    record_state("leases", "failed")
    next_hint(leases)
    next_hint(leases)
    assert next_hint(leases, reset=True) == "The hints of leases begin anew."
    assert read_progress() == {"leases": Standing("failed", 0)}
    assert next_hint(leases).startswith("Hint 1")


@pytest.mark.parametrize("text", [None, "# Hints\n"])
def test_a_lab_without_hints_says_so(leases: Lab, text: str | None) -> None:
    path = leases.folder / "hints.md"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(LabError, match=r"labs/middleware/leases/hints\.md holds no hints"):
        next_hint(leases)


def test_hints_that_are_no_text_are_told(leases: Lab) -> None:
    (leases.folder / "hints.md").write_bytes(b"## Hint 1\n\xff\n")
    with pytest.raises(LabError, match=r"labs/middleware/leases/hints\.md cannot be read: 'utf-8' codec"):
        next_hint(leases)


def test_progress_is_a_small_file_that_a_person_can_read(root: Path) -> None:
    record_state("b", "failed")
    record_hints("a", 1)
    data = json.loads((root / ".labs/progress.json").read_text())
    assert data == {"version": 1, "labs": {"a": {"state": "new", "hints": 1}, "b": {"state": "failed", "hints": 0}}}


def test_once_passed_stays_passed(root: Path) -> None:
    record_state("a", "failed")
    record_state("a", "passed")
    record_state("a", "failed")
    assert read_progress()["a"].state == "passed"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"version": 2, "labs": {}}',
        '{"version": 1, "labs": []}',
        '{"version": 1, "labs": {"a": {"state": "perfect"}}}',
        '{"version": 1, "labs": {"a": {"hints": "1"}}}',
        '{"version": 1, "labs": {"a": {"mood": "good"}}}',
        '{"version": 1, "labs": {"a": 3}}',
        "\xff",
    ],
)
def test_a_broken_progress_file_is_kept_and_said(root: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = root / ".labs" / "progress.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    assert read_progress() == {}
    assert "is kept as .labs/progress.json.broken" in capsys.readouterr().err
    assert path.with_name("progress.json.broken").read_bytes() == text.encode("latin-1")
    record_hints("a", 1)
    assert read_progress() == {"a": Standing(hints=1)}
    assert capsys.readouterr().err == ""


def test_a_second_broken_file_does_not_replace_the_first(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / ".labs" / "progress.json"
    path.parent.mkdir()
    for text in ("{", "[", "]"):
        path.write_text(text)
        assert read_progress() == {}
    assert "is kept as .labs/progress.json.broken-3" in capsys.readouterr().err
    assert [path.with_name(f"progress.json.broken{number}").read_text() for number in ("", "-2", "-3")] == ["{", "[", "]"]


def test_a_place_that_cannot_be_written_is_said_and_no_more(root: Path, leases: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    (root / ".labs").write_text("a file, where the folder should be")
    assert next_hint(leases).startswith("Hint 1")
    assert "your progress cannot be saved" in capsys.readouterr().err


def test_runs_that_end_together_do_not_lose_each_others_note(root: Path) -> None:
    threads = [threading.Thread(target=record_state, args=(f"lab-{n}", "failed")) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_progress()) == 20
