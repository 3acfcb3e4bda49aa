"""The template of a new lab."""

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.errors import LabError, MachineError
from runner.form import check_form
from runner.lab import find_lab, resolve_submission
from runner.template import create

if TYPE_CHECKING:
    from conftest import Kit


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "labs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv("LABS_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_lab_is_complete_but_for_its_authors_words(root: Path) -> None:
    message = create(root, "middleware/cache-warming")
    assert "labs/middleware/cache-warming/ is a lab that runs" in message
    assert "make verify NAME=cache-warming" in message
    problems = check_form(find_lab("cache-warming"))
    assert {problem.partition(":")[0] for problem in problems} >= {
        "README.md",
        "hints.md",
        "debrief.md",
        "lab.toml",
        "test_lab.py",
    }
    assert [problem for problem in problems if "TODO(author)" not in problem] == []


def test_with_the_authors_words_its_form_is_good(root: Path) -> None:
    create(root, "middleware/cache-warming")
    for path in (root / "labs").rglob("*.*"):
        path.write_text(path.read_text().replace("TODO(author)", "Done"))
    assert check_form(find_lab("cache-warming")) == []


def test_each_submission_can_run(root: Path) -> None:
    create(root, "labs/middleware/cache-warming/")
    lab = find_lab("cache-warming")
    for name in ("starter", "solution", *(f"wrong/{bug}" for bug in lab.wrong)):
        tree = ast.parse((resolve_submission(lab, name).path / "app.py").read_text())
        assert any(isinstance(node, ast.AsyncFunctionDef) for node in tree.body)


def test_the_words_of_the_name_are_filled_in_everywhere(root: Path) -> None:
    create(root, "security/token-replay")
    texts = {path: path.read_text() for path in (root / "labs").rglob("*.*")}
    assert not [path for path, text in texts.items() if "$" in text or path.suffix == ".tmpl"]
    assert find_lab("token-replay").covers == ("security/cia-triad",)
    assert "make lab NAME=token-replay" in texts[root / "labs/security/token-replay/README.md"]


ODD = """\
import itertools, json

numbers = itertools.count(1)


async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = {body!r} if scope["method"] == {method!r} else json.dumps({{"id": scope["path"].split("/")[-2], "likes": next(numbers)}})
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}})
    await send({{"type": "http.response.body", "body": body.encode()}})
"""


@pytest.mark.parametrize(
    ("method", "body", "check"),
    [
        ("POST", "liked", "the contract holds"),
        ("POST", "[]", "the contract holds"),
        ("GET", "17 likes", "no like is lost"),
        ("GET", "[]", "no like is lost"),
    ],
)
def test_an_app_that_answers_oddly_fails_and_does_not_break_the_lab(kit: "Kit", method: str, body: str, check: str) -> None:
    assert kit.labs("new", "middleware/likes").returncode == 0
    (kit.root / "odd").mkdir()
    (kit.root / "odd" / "app.py").write_text(ODD.format(method=method, body=body))
    done = kit.labs("run", "likes", "--submission=odd")
    assert done.returncode == 1, done
    assert f"  x {check}\n" in done.stdout


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("midleware/x", "no topic 'midleware'; did you mean middleware?", "topics: programming-language, "),
        ("middleware", "'middleware' is no topic/name", "make new NAME="),
        ("middleware/", "is no topic/name", "make new NAME="),
        ("middleware/Cache_Warming", "'Cache_Warming' is not kebab-case", "hyphens"),
        ("middleware/a/b", "'a/b' is not kebab-case", "hyphens"),
        ("middleware/../x", "is not kebab-case", "hyphens"),
        ("security/taken", "labs/middleware/taken exists already; nothing was written", "unique"),
        ("security/no-lab-yet", "labs/security/no-lab-yet exists already; nothing was written", "unique"),
    ],
)
def test_a_bad_or_taken_name_writes_nothing(root: Path, path: str, message: str, hint: str) -> None:
    create(root, "middleware/taken")
    (root / "labs/security/no-lab-yet").mkdir(parents=True)
    before = sorted(root.rglob("*"))
    with pytest.raises(LabError) as caught:
        create(root, path)
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert sorted(root.rglob("*")) == before


def test_a_place_that_cannot_be_written_is_the_machines_fault(root: Path) -> None:
    (root / "labs/middleware").write_text("a file, where the folder should be")
    with pytest.raises(MachineError, match="labs/middleware/x cannot be written"):
        create(root, "middleware/x")
