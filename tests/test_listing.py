"""What `labs list` shows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runner.listing import list_labs
from runner.progress import record_hints, record_state
from runner.template import create


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "labs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv("LABS_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_labs_stand_under_their_topic_in_the_roadmaps_order(root: Path) -> None:
    create(root, "middleware/zero-copy")
    create(root, "networking/slow-start")
    lines = list_labs(root).splitlines()
    assert lines == [
        "Stage 1  Computer networking",
        "  slow-start  2/5   30 min  redis  new",
        "",
        "Stage 2  Middleware: Redis, MySQL, Kafka",
        "  zero-copy   2/5   30 min  redis  new",
        "",
        "roadmap: 2 of its 147 leaves have a lab, 0 you have passed",
    ]


def test_it_shows_where_the_learner_stands(root: Path) -> None:
    for name in ("untouched", "begun", "lost", "won"):
        create(root, f"middleware/{name}")
    (root / "my" / "begun").mkdir(parents=True)
    record_state("lost", "failed")
    record_hints("lost", 2)
    record_state("won", "passed")
    rows = {line.split()[0]: line for line in list_labs(root).splitlines() if line.startswith("  ")}
    assert rows["untouched"].endswith("new")
    assert rows["begun"].endswith("started")
    assert rows["lost"].endswith("failed   2 hints taken")
    assert rows["won"].endswith("passed")
    assert list_labs(root).endswith("1 of its 147 leaves have a lab, 1 you have passed")


def test_json_holds_the_same(root: Path) -> None:
    create(root, "middleware/zero-copy")
    record_state("zero-copy", "passed")
    data = json.loads(list_labs(root, as_json=True))
    (lab,) = data["labs"]
    assert data["version"] == 1
    assert (lab["name"], lab["topic"], lab["stage"], lab["state"], lab["services"]) == (
        "zero-copy",
        "middleware",
        2,
        "passed",
        ["redis"],
    )
    assert data["roadmap"] == {"leaves": 147, "covered": lab["covers"]}
    assert data["broken"] == {}


def test_a_broken_lab_is_named_and_hides_no_other(root: Path) -> None:
    create(root, "middleware/good")
    create(root, "middleware/bad")
    path = root / "labs/middleware/bad/lab.toml"
    path.write_text(path.read_text().replace("difficulty = 2", "difficulty = [2]"))
    text = list_labs(root)
    assert "  good  2/5" in text
    assert "broken: labs/middleware/bad/lab.toml has 1 problem\n  line 3: difficulty: should be a whole number, is [2]" in text
    assert list(json.loads(list_labs(root, as_json=True))["broken"]) == ["bad"]


def test_no_labs_is_no_error(root: Path) -> None:
    assert list_labs(root).splitlines()[0] == "There are no labs yet."


def test_a_lab_off_the_roadmap_is_still_shown(root: Path) -> None:
    create(root, "middleware/strange")
    (root / "labs/middleware").rename(root / "labs/elsewhere")
    assert list_labs(root).startswith("Off the roadmap  elsewhere\n  strange")


def test_it_imports_nothing_heavy() -> None:
    heavy = "pydantic, rich, pytest, locust, fastapi, asyncio"
    code = f"import sys; from runner.cli import main; main(['list']); print(*set('{heavy}'.split(', ')) & set(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert "Stage 1" in done.stdout
    assert done.stderr.strip() == ""
