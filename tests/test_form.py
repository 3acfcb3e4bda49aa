"""The form of a lab's folder: each rule is broken once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.form import check_form
from runner.lab import read_lab
from runner.template import create


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab in good form: the template with its author's words."""
    (tmp_path / "labs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv("LABS_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    create(tmp_path, "middleware/likes")
    for path in (tmp_path / "labs").rglob("*.*"):
        path.write_text(path.read_text().replace("TODO(author)", "Done"))
    return tmp_path / "labs/middleware/likes"


@pytest.fixture
def edit(folder: Path) -> Callable[[str, str, str], None]:
    def edit_file(name: str, old: str, new: str) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return edit_file


Edit = Callable[[str, str, str], None]


def form_of(folder: Path) -> list[str]:
    return check_form(read_lab(folder))


@pytest.mark.parametrize("name", ["README.md", "hints.md", "debrief.md", "locustfile.py", "test_lab.py"])
def test_a_missing_or_empty_file_is_told(folder: Path, name: str) -> None:
    (folder / name).write_text(" \n")
    assert f"{name} is empty" in form_of(folder)
    (folder / name).unlink()
    assert f"{name} is missing" in form_of(folder)


@pytest.mark.parametrize("name", ["starter", "solution", "wrong"])
def test_a_missing_folder_is_told(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / "away")
    assert f"{name}/ is missing" in form_of(folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("hints.md", "## Hint 3", "### Hint 3", "hints.md must have three hints headed `## Hint 1` to `## Hint 3`; it has: 1, 2"),
        (
            "hints.md",
            "## Hint 3",
            "## Hint 4",
            "hints.md must have three hints headed `## Hint 1` to `## Hint 3`; it has: 1, 2, 4",
        ),
        (
            "hints.md",
            "## Hint 2",
            "## Hint 1\n\n## Hint 2",
            "hints.md must have three hints headed `## Hint 1` to `## Hint 3`; it has: 1, 1, 2, 3",
        ),
        ("test_lab.py", "Why: Done: what", "Because", "test_lab.py:21: test_the_contract_holds: its docstring has no `Why:`"),
        (
            "test_lab.py",
            "POST /posts",
            "Why: POST",
            "test_lab.py:21: test_the_contract_holds: its docstring does not begin with the promise",
        ),
        (
            "test_lab.py",
            "def test_no_like",
            "def test_bare(lab):\n    pass\n\n\ndef test_no_like",
            "test_lab.py:33: test_bare has no docstring: its first line is the promise, its `Why:` the mechanism",
        ),
        (
            "test_lab.py",
            "def test_no_like",
            'class TestMore:\n    def test_more(self, lab):\n        """P.\n\n        Why: w.\n        """\n\n\ndef test_no_like',
            "no wrong submission has test_more first in its `fails`: nothing shows that it can fail",
        ),
        (
            "lab.toml",
            'fails = ["test_the_contract_holds"]',
            'fails = ["test_the_contract_hold"]',
            "lab.toml: [wrong.turn-away-the-crowd] fails: test_lab.py has no check test_the_contract_hold; did",
        ),
        (
            "lab.toml",
            'fails = ["test_the_contract_holds"]',
            'fails = ["test_no_like_is_lost"]',
            "no wrong submission has test_the_contract_holds first in its `fails`: nothing shows that it can fail",
        ),
        (
            "lab.toml",
            'fails = ["test_the_contract_holds"]',
            'fails = ["test_no_like_is_lost", "test_the_contract_holds"]',
            "no wrong submission has test_the_contract_holds first in its `fails`: nothing shows that it can fail",
        ),
        (
            "lab.toml",
            "[wrong.process",
            'may_fail = ["test_x"]\n\n[wrong.process',
            "lab.toml: [starter] may_fail: test_lab.py has no check test_x",
        ),
        (
            "lab.toml",
            '[starter]\nfails = ["test_no_like_is_lost"]',
            "[starter]\nfails = []",
            "lab.toml: [starter] fails no check",
        ),
        (
            "lab.toml",
            "[wrong.process-local-lock]",
            "[wrong.other]",
            "wrong/process-local-lock has no table [wrong.process-local-lock] in lab.toml",
        ),
        ("lab.toml", "[wrong.process-local-lock]", "[wrong.other]", "lab.toml: [wrong.other] has no folder wrong/other"),
        (
            "lab.toml",
            "[starter]",
            '[peers.bank]\ncommand = ["python", "bank.py"]\n\n[starter]',
            "lab.toml: the peer bank runs bank.py, which is missing",
        ),
        (
            "lab.toml",
            "middleware/redis-data-types",
            "security/xss",
            "lab.toml: it lies under middleware/, but `covers` names no leaf of that topic",
        ),
        (
            "wrong/process-local-lock/app.py",
            "# bug: locks",
            "# locks",
            "wrong/process-local-lock/app.py:1: must name the bug: `# bug: locks inside one process, so",
        ),
        ("starter/app.py", "async def like(", "async def like(()", "starter/app.py:13: syntax error: invalid syntax"),
        ("starter/app.py", "app = FastAPI()", "return", "starter/app.py:8: syntax error: 'return' outside function"),
        (
            "solution/app.py",
            "# Done: the reference",
            "# TODO(author): the reference",
            "solution/app.py:14: # TODO(author): the reference; ",
        ),
    ],
)
def test_a_broken_rule_is_told(folder: Path, edit: Edit, file: str, old: str, new: str, problem: str) -> None:
    assert form_of(folder) == []
    edit(file, old, new)
    found = form_of(folder)
    assert any(seen.startswith(problem) for seen in found), found


def test_a_test_file_that_is_no_python_is_told_once(folder: Path, edit: Edit) -> None:
    edit("test_lab.py", "import pytest", "import")
    problems = form_of(folder)
    assert problems[0] == "test_lab.py has no check: a function called test_..."
    assert len(problems) == 2


def test_a_module_that_the_load_or_a_peer_imports_is_part_of_the_lab(folder: Path) -> None:
    (folder / "forms.py").write_text("import shapes\n")
    (folder / "shapes.py").touch()
    assert form_of(folder) == ["forms.py is no part of a lab: remove it", "shapes.py is no part of a lab: remove it"]
    script = folder / "locustfile.py"
    script.write_text(f"from forms import Form\n{script.read_text()}")
    assert form_of(folder) == []


@pytest.mark.parametrize("name", ["notes.txt", "helper.py", "wrong/app.py", ".env", "my-solution/app.py"])
def test_a_stray_file_is_told(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    stray = name if name.startswith("wrong/") else name.split("/", maxsplit=1)[0]
    assert form_of(folder) == [f"{stray} is no part of a lab: remove it"]


def test_what_lab_toml_names_and_what_tools_leave_is_no_stray(folder: Path, edit: Edit) -> None:
    edit("lab.toml", 'services = ["redis"]', 'services = ["redis", "mysql"]')
    (folder / "schema.sql").write_text("create table t (id int);")
    (folder / "bank.py").touch()
    edit("lab.toml", "[starter]", '[mysql]\nschema = "schema.sql"\n\n[peers.bank]\ncommand = ["python", "bank.py"]\n\n[starter]')
    for place in (".", "wrong", "wrong/process-local-lock", "solution"):
        (folder / place / "__pycache__").mkdir()
        (folder / place / "__pycache__" / "app.pyc").write_bytes(b"TODO(author)\0")
    assert form_of(folder) == []


def test_a_wrong_submission_like_the_solution_is_told(folder: Path) -> None:
    (folder / "wrong/process-local-lock/app.py").write_bytes((folder / "solution/app.py").read_bytes())
    assert form_of(folder) == ["wrong/process-local-lock does not differ from the solution"]


def test_the_bug_may_stand_in_another_file_that_differs(folder: Path) -> None:
    wrong = folder / "wrong/process-local-lock"
    (wrong / "locks.py").write_bytes((wrong / "app.py").read_bytes())
    (wrong / "app.py").write_bytes((folder / "solution/app.py").read_bytes())
    assert form_of(folder) == []


def test_a_submission_without_its_app_is_told(folder: Path) -> None:
    (folder / "solution/app.py").rename(folder / "solution/main.py")
    (found,) = [problem for problem in form_of(folder) if "solution" in problem]
    assert "solution has no app.py, which `uvicorn app:app --port {port} --no-access-log` runs; it has main.py" in found


def test_a_name_is_unique_and_a_topic_known(folder: Path) -> None:
    other = folder.parent.parent / "elsewhere" / "likes"
    other.mkdir(parents=True)
    (other / "lab.toml").write_text((folder / "lab.toml").read_text())
    assert form_of(folder) == ["elsewhere/likes has the same name: names are unique"]
    assert "it lies under elsewhere/, which is no topic of the roadmap" in form_of(other)


def test_a_null_byte_is_a_syntax_error(folder: Path) -> None:
    (folder / "starter/app.py").write_bytes(b"x = 1\0")
    assert any(problem.startswith("starter/app.py") and "null bytes" in problem for problem in form_of(folder))
