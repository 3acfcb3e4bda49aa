"""A learner's own try, and what to do next."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.attempt import reset, show_debrief, show_solution, text_files
from runner.errors import LabError, MachineError
from runner.guidance import choose_next, describe_next, likely_bugs
from runner.lab import Lab, copy_starter, find_lab, my_folder
from runner.listing import Row
from runner.progress import record_state

if TYPE_CHECKING:
    from conftest import Kit


@pytest.fixture
def hits(kit: "Kit", monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("LABS_ROOT", str(kit.root))
    monkeypatch.chdir(kit.root)
    lab = find_lab("hits")
    copy_starter(lab)
    return lab


def test_reset_keeps_what_was_there(hits: Lab, kit: "Kit") -> None:
    mine = my_folder(hits) / "app.py"
    mine.write_text("mine = True\n")
    assert "is the starter again" in reset(hits)
    assert mine.read_text() == (hits.folder / "starter" / "app.py").read_text()
    (kept,) = (kit.root / ".labs" / "attic").iterdir()
    assert (kept / "app.py").read_text() == "mine = True\n"


def test_a_reset_that_stops_half_way_says_where_the_version_went(hits: Lab, kit: "Kit") -> None:
    shutil.rmtree(hits.folder / "starter")
    with pytest.raises(MachineError, match="the starter cannot be copied to my/hits") as caught:
        reset(hits)
    (kept,) = (kit.root / ".labs" / "attic").iterdir()
    assert str(caught.value).endswith(f"\nYour version is kept as .labs/attic/{kept.name}/.")


def test_reset_of_a_lab_never_begun_is_its_beginning(hits: Lab) -> None:
    shutil.rmtree(my_folder(hits))
    assert reset(hits) == "my/hits/ is the starter again."


def test_solution_and_debrief_wait_for_a_pass(hits: Lab) -> None:
    for show in (show_solution, show_debrief):
        with pytest.raises(LabError, match="you have not passed hits yet") as caught:
            show(hits, anyway=False)
        assert "--show-anyway" in caught.value.hint
    (hits.folder / "debrief.md").unlink()
    with pytest.raises(LabError, match=r"labs/microservices/hits has no debrief\.md"):
        show_debrief(hits, anyway=True)
    (hits.folder / "debrief.md").write_text("It works.\n")
    assert show_debrief(hits, anyway=True) == "It works."
    record_state("hits", "passed")
    assert show_debrief(hits, anyway=False) == "It works."


def test_the_solution_is_a_diff_against_mine(hits: Lab) -> None:
    (my_folder(hits) / "notes.txt").write_text("mine\n")
    text = show_solution(hits, anyway=True)
    assert "From my/hits/ (-) to labs/microservices/hits/solution/ (+)" in text
    assert "-mine" in text.splitlines()
    (my_folder(hits) / "notes.txt").unlink()
    (my_folder(hits) / "app.py").write_text((hits.folder / "solution" / "app.py").read_text())
    assert show_solution(hits, anyway=True) == "my/hits/ is the solution, letter for letter."


def test_what_is_nobodys_work_is_not_compared(hits: Lab) -> None:
    for name in ("__pycache__/app.pyc", "node_modules/left-pad/index.js", ".venv/bin/python", ".DS_Store"):
        (my_folder(hits) / name).parent.mkdir(parents=True, exist_ok=True)
        (my_folder(hits) / name).touch()
    assert text_files(my_folder(hits)) == {"app.py"}


def test_of_what_is_no_text_is_said_that_it_differs(hits: Lab) -> None:
    mine, solution = my_folder(hits) / "hits.db", hits.folder / "solution" / "hits.db"
    mine.write_bytes(b"\0mine")
    solution.write_bytes(b"\0right")
    text = show_solution(hits, anyway=True)
    assert "my/hits/hits.db and labs/microservices/hits/solution/hits.db differ, and are no text\n" in f"{text}\n"
    solution.write_bytes(b"\0mine")
    assert "hits.db" not in show_solution(hits, anyway=True)


def test_a_folder_that_goes_while_we_look_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app.py").touch()
    (tmp_path / "below").mkdir()
    scan = os.scandir

    def remove_and_scan(path: Any) -> Any:
        if Path(path).name == "below":
            Path(path).rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", remove_and_scan)
    assert text_files(tmp_path) == {"app.py"}


ROW = Row("a", "t", 2, "A", 3, 30, [], [], "new", 0)


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ([], None),
        ([replace(ROW, state="passed")], None),
        ([ROW, replace(ROW, name="b", stage=1, difficulty=5)], "b"),
        ([ROW, replace(ROW, name="b", difficulty=1)], "b"),
        ([replace(ROW, stage=1), replace(ROW, name="b", stage=4, state="failed")], "b"),
        ([replace(ROW, stage=None), replace(ROW, name="b", stage=9)], "b"),
    ],
)
def test_what_comes_next(rows: list[Row], chosen: str | None) -> None:
    row = choose_next(rows)
    assert (row.name if row else None) == chosen


def test_next_names_a_command(hits: Lab, kit: "Kit") -> None:
    text = describe_next(kit.root)
    assert text.startswith("hits: Hits (begun, not passed)")
    assert text.endswith("next: make lab NAME=hits")
    for name in ("hits", "unsure", "bench"):
        record_state(name, "passed")
    assert describe_next(kit.root) == "You have passed every lab there is."


def test_a_failure_like_a_known_one_is_told(hits: Lab) -> None:
    assert likely_bugs(hits, ["test_no_two_hits_have_one_number"]) == ["gives two hits the same number"]
    assert likely_bugs(hits, ["test_every_hit_is_counted"]) == ["counts nine hits of ten"]
    assert likely_bugs(hits, ["test_every_hit_is_counted", "test_no_two_hits_have_one_number"]) == []
    assert likely_bugs(hits, []) == []


def test_the_verdict_tells_it_and_a_pass_names_the_debrief(kit: "Kit") -> None:
    mine = Path(kit.root / "my" / "hits")
    mine.mkdir(parents=True)
    (mine / "app.py").write_text((kit.lab("hits") / "wrong" / "numbers-twice" / "app.py").read_text())
    done = kit.labs("run", "hits")
    assert done.returncode == 1
    assert "Others who failed just these checks had a version that gives two hits the same number." in done.stdout
    (mine / "app.py").write_text((kit.lab("hits") / "solution" / "app.py").read_text())
    done = kit.labs("run", "hits")
    assert done.returncode == 0
    assert "next: make debrief NAME=hits" in done.stdout
