"""lab.toml, and finding labs and submissions."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from runner.checkout import all_lab_folders
from runner.errors import LabError, MachineError
from runner.lab import Lab, copy_starter, files_of, find_lab, find_root, read_lab, resolve_submission

LAB_TOML = """\
title = "Cache stampede"
covers = [
  "middleware/redis-caching-strategies",
  "high-concurrency/caching",
]
difficulty = 3
minutes = 40
services = ["redis", "mysql", "kafka"]

[app]
command = ["uvicorn", "app:app", "--port", "{port}"]
replicas = 4

[app.extra.worker]
command = ["python", "worker.py"]
replicas = 2

[mysql]
schema = "schema.sql"

[kafka]
topics = ["orders 6", "audit 1 retention.ms=1000"]

[peers.catalog]
command = ["python", "catalog.py"]

[starter]
fails = ["test_a"]

[wrong.process-local-lock]
bug = "locks inside one process"
fails = ["test_a"]
may_fail = ["test_b"]
"""

OURS = "app, build, check, compose, gate, kafka, load, locust, mysql, proxy, pytest, redis: choose another name"
WriteLab = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "labs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv("LABS_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_lab(root: Path) -> WriteLab:
    def write(text: str = LAB_TOML, name: str = "cache-stampede", topic: str = "middleware") -> Path:
        folder = root / "labs" / topic / name
        for submission in ("starter", "solution", "wrong/process-local-lock"):
            (folder / submission).mkdir(parents=True)
            for file in ("app.py", "worker.py"):
                (folder / submission / file).touch()
        (folder / "schema.sql").write_text("create table t (id int);\n")
        (folder / "lab.toml").write_text(text)
        return folder

    return write


@pytest.fixture
def stampede(write_lab: WriteLab) -> Lab:
    return read_lab(write_lab())


def problems_of(folder: Path) -> list[str]:
    with pytest.raises(LabError) as caught:
        read_lab(folder)
    first, *problems = str(caught.value).splitlines()
    assert first.startswith("labs/middleware/cache-stampede/lab.toml has ")
    return [problem.strip() for problem in problems]


def test_a_lab_is_what_its_file_says(stampede: Lab) -> None:
    assert (stampede.name, stampede.topic, stampede.title) == ("cache-stampede", "middleware", "Cache stampede")
    assert (stampede.app.replicas, stampede.app.ready, stampede.app.ready_within_s, stampede.app.skewable) == (
        4,
        "GET /healthz",
        20.0,
        False,
    )
    assert stampede.app.extra["worker"].replicas == 2
    assert stampede.app.extra["worker"].ready is None
    assert stampede.peers["catalog"].command == ("python", "catalog.py")
    assert (stampede.wrong["process-local-lock"].fails, stampede.wrong["process-local-lock"].may_fail) == (
        ("test_a",),
        ("test_b",),
    )
    assert stampede.starter.may_fail == ()


def test_a_lab_tells_what_each_service_shall_hold(stampede: Lab) -> None:
    assert stampede.schema_of("mysql") == "create table t (id int);\n"
    assert stampede.schema_of("kafka") == "orders 6\naudit 1 retention.ms=1000"
    assert stampede.schema_of("redis") == ""


def test_a_lab_cannot_be_changed(stampede: Lab) -> None:
    with pytest.raises(ValidationError):
        stampede.difficulty = 1
    with pytest.raises(ValidationError):
        stampede.app.replicas = 1


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("replicas = 4", "replica = 4", "line 12: [app] replica: unknown key; did you mean replicas?"),
        (
            "[app.extra.worker]",
            "[app.extra.worker]\nreplcas = 1",
            "line 15: [app.extra.worker] replcas: unknown key; did you mean replicas?",
        ),
        ('schema = "schema.sql"', 'shema = "schema.sql"', "line 19: [mysql] shema: unknown key; did you mean schema?"),
        ("[starter]", "[strater]", "line 27: strater: unknown key; did you mean starter?"),
        ("difficulty = 3", "difficulty = 9", "line 6: difficulty: should be less than or equal to 5, is 9"),
        (
            '[peers.catalog]\ncommand = ["python", "catalog.py"]',
            "[peers]\ncatalog = 3",
            "line 25: [peers] catalog: should be a table, is 3",
        ),
        ("difficulty = 3", "difficulty = true", "line 6: difficulty: should be a whole number, is True"),
        ("minutes = 40", 'minutes = "40"', "line 7: minutes: should be a whole number, is '40'"),
        ("minutes = 40", "", "line 1: minutes is missing"),
        ('bug = "locks inside one process"', "", "line 30: [wrong.process-local-lock] bug is missing"),
        ("replicas = 4", "replicas = 0", "line 12: [app] replicas: should be greater than or equal to 1, is 0"),
        (
            '["python", "worker.py"]',
            '"python worker.py"',
            "line 15: [app.extra.worker] command: should be a list, is 'python worker.py'",
        ),
        ('["python", "catalog.py"]', "[]", "line 25: [peers.catalog] command: should not be empty, is []"),
        ("replicas = 4", 'ready = "healthz"', "line 12: [app] ready: 'healthz' is no request line like `GET /healthz`"),
        (
            "high-concurrency/caching",
            "high-concurrency/cashing",
            "line 4: covers: the roadmap has no leaf 'high-concurrency/cashing'; did you mean high-concurrency/caching",
        ),
        (
            '"mysql", "kafka"',
            '"mysql", "kafka", "mongo"',
            "line 8: services: there is no service 'mongo'; there are redis, mysql, kafka",
        ),
        ('"kafka"]', '"kafka"]\nwires = ["redis", "catalogue"]', "line 9: wires: no service or peer is called 'catalogue'; did you mean catalog"),
        ('"mysql", "kafka"', '"kafka"', "line 18: mysql: this table needs 'mysql' among `services`"),
        ('"schema.sql"', '"other.sql"', "line 19: [mysql] schema: the lab's folder has no file 'other.sql'"),
        ('"schema.sql"', '"../cache-stampede/schema.sql"', "line 19: [mysql] schema: the lab's folder has no file '../"),
        ('"orders 6"', '"orders"', "line 22: [kafka] topics: 'orders' is no topic like `orders 6`"),
        (
            "[peers.catalog]",
            "[peers.redis]",
            f"line 24: [peers] redis: the kit itself has processes called {OURS}",
        ),
        ("[peers.catalog]", "[peers.proxy]", "line 24: [peers] proxy: the kit itself has processes called app"),
        ("[peers.catalog]", "[peers.gate]", "line 24: [peers] gate: the kit itself has processes called app"),
        ("[peers.catalog]", "[peers.worker-2]", "line 24: peers: the app has a process called 'worker-2': choose another name"),
        ("[app.extra.worker]", "[app.extra.app-1]", "line 14: [app.extra] app-1: the kit itself has processes called app"),
        (
            "[wrong.process-local-lock]",
            "[wrong.Local_Lock]",
            "line 30: [wrong] Local_Lock: the name 'Local_Lock' is not kebab-case",
        ),
        (
            'may_fail = ["test_b"]',
            'may_fail = ["test_a"]',
            "line 33: [wrong.process-local-lock] may_fail: test_a is in `fails` already",
        ),
        ('fails = ["test_a"]\n\n', 'fails = ["test a"]\n\n', "line 28: [starter] fails: 'test a' is no name of a check"),
        ('fails = ["test_a"]\n\n', 'fails = ["test_a", "test_a"]\n\n', "line 28: [starter] fails: named twice: test_a"),
        ("[mysql]", "mysql = 3\n[sqlmy]", "line 18: [app.extra.worker] mysql: unknown key"),
    ],
)
def test_a_problem_is_told_with_line_and_key(write_lab: WriteLab, old: str, new: str, problem: str) -> None:
    assert LAB_TOML.count(old) == 1
    found = problems_of(write_lab(LAB_TOML.replace(old, new)))
    assert any(seen.startswith(problem) for seen in found), found


def test_all_problems_are_told_at_once(write_lab: WriteLab) -> None:
    text = LAB_TOML.replace("difficulty = 3", "difficulty = 0").replace("replicas = 4", "replica = 4").replace('"mysql", "kafka"', '"kafak"')
    assert [problem.partition(":")[0] for problem in problems_of(write_lab(text))] == ["line 6", "line 8", "line 12"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAB_TOML.replace("minutes = 40", "minutes = forty"), "line 7: Invalid value: minutes = forty"),
        (LAB_TOML.replace("minutes = 40", "difficulty = 4"), "line 7: Cannot overwrite a value: difficulty = 4"),
        ('title = """never closed\n', 'line 1: Expected "\\"\\"\\"": title = """never closed'),
        (LAB_TOML + "[app", "line 34: Expected ']' at the end of a table declaration: [app"),
    ],
)
def test_broken_toml_is_told_with_its_line(write_lab: WriteLab, text: str, problem: str) -> None:
    (seen,) = problems_of(write_lab(text))
    line = problem.partition(":")[0]
    assert seen.startswith(line)
    assert seen.endswith(problem.rpartition(": ")[2])


def test_a_file_that_is_no_text_is_told(write_lab: WriteLab) -> None:
    folder = write_lab()
    (folder / "lab.toml").write_bytes(b"title = \xff")
    with pytest.raises(LabError, match="cannot be read"):
        read_lab(folder)
    with pytest.raises(LabError, match="cannot be read"):
        read_lab(folder.parent)


def test_the_folder_must_be_kebab_case(write_lab: WriteLab) -> None:
    with pytest.raises(LabError, match="the folder's name 'Cache_Stampede' is not kebab-case"):
        read_lab(write_lab(name="Cache_Stampede"))


def test_the_real_root_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABS_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_root() == Path(__file__).parent.parent


def test_a_wrong_root_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_ROOT", str(tmp_path))
    with pytest.raises(LabError, match=r"it has no labs and no pyproject\.toml") as caught:
        find_root()
    assert "LABS_ROOT" in caught.value.hint


def test_labs_come_in_the_roadmaps_order(root: Path, write_lab: WriteLab) -> None:
    write_lab(name="zoning", topic="microservices")
    write_lab(name="b", topic="middleware")
    write_lab(name="a", topic="middleware")
    write_lab(name=".half-written", topic="middleware")
    assert [folder.name for folder in all_lab_folders(root)] == ["zoning", "a", "b"]


@pytest.mark.parametrize("name", ["cache-stampede", "middleware/cache-stampede", "labs/middleware/cache-stampede/"])
def test_a_lab_is_found_by_its_name(stampede: Lab, name: str) -> None:
    assert find_lab(name) == stampede


def test_a_broken_lab_does_not_hide_another(write_lab: WriteLab) -> None:
    write_lab("title = ", name="broken")
    write_lab()
    assert find_lab("cache-stampede").title == "Cache stampede"


def test_an_unknown_name_offers_the_nearest(stampede: Lab) -> None:
    with pytest.raises(LabError, match="no lab is called 'cache-stampde'; did you mean cache-stampede"):
        find_lab("cache-stampde")


def test_a_name_used_twice_is_refused(write_lab: WriteLab) -> None:
    write_lab()
    write_lab(topic="high-concurrency")
    with pytest.raises(LabError, match="'cache-stampede' is the name of labs/middleware/cache-stampede, labs/high-concurrency/"):
        find_lab("cache-stampede")
    assert find_lab("high-concurrency/cache-stampede").topic == "high-concurrency"


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ("starter", "starter", "starter"),
        ("solution/", "solution", "solution"),
        ("wrong/process-local-lock", "wrong/process-local-lock", "wrong"),
        ("labs/middleware/cache-stampede/solution", "solution", "solution"),
        ("labs/middleware/cache-stampede/wrong/process-local-lock/", "wrong/process-local-lock", "wrong"),
    ],
)
def test_a_submission_of_the_lab_is_found(stampede: Lab, text: str, name: str, kind: str) -> None:
    submission = resolve_submission(stampede, text)
    assert (submission.name, submission.kind, submission.path) == (name, kind, stampede.folder / name)


@pytest.mark.parametrize("text", [None, "", "mine", "my/cache-stampede/"])
def test_mine_is_the_default(root: Path, stampede: Lab, text: str | None) -> None:
    assert copy_starter(stampede)
    submission = resolve_submission(stampede, text)
    assert (submission.name, submission.kind, submission.path) == ("mine", "mine", root / "my/cache-stampede")


def test_any_folder_can_be_a_submission(root: Path, stampede: Lab) -> None:
    folder = root / "elsewhere"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "__init__.py").touch()
    (folder / "worker.py").touch()
    submission = resolve_submission(stampede, "elsewhere")
    assert (submission.kind, submission.path) == ("path", folder)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("mine", "'mine' does not exist: there is no folder my/cache-stampede", "make lab NAME=cache-stampede"),
        ("wrong/proces-local-lock", "did you mean wrong/process-local-lock", "starter, solution, wrong/process-local-lock, mine"),
        ("nowhere", "'nowhere' does not exist", "the path of a folder"),
        ("loop", "'loop' does not exist", "the path of a folder"),
        ("~no-such-user/mine", "'~no-such-user/mine' does not exist", "the path of a folder"),
        ("labs/middleware/cache-stampede/starter/app.py", "is a file", "give its folder: labs/middleware/cache-stampede/starter"),
        ("empty", "the submission empty is empty", "start from labs/middleware/cache-stampede/starter"),
        ("labs", r"labs has no app\.py, which `uvicorn app:app --port {port}` runs; it has middleware", "right folder"),
        ("half", r"half has no worker\.py, which `python worker\.py` runs; it has app\.py", "right folder"),
    ],
)
def test_a_submission_that_cannot_run_is_told(root: Path, stampede: Lab, text: str, message: str, hint: str) -> None:
    (root / "empty").mkdir()
    (root / "half").mkdir()
    (root / "half" / "app.py").touch()
    (root / "loop").symlink_to("loop")
    with pytest.raises(LabError, match=message) as caught:
        resolve_submission(stampede, text)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("command", "files"),
    [
        (["uvicorn", "app:app", "--port", "{port}"], ["app.py"]),
        (["uvicorn", "shop.main:make_app", "--factory"], ["shop/main.py"]),
        (["gunicorn", "--bind", "127.0.0.1:{port}", "app:app"], ["app.py"]),
        (["python", "-u", "src/worker.py"], ["src/worker.py"]),
        (["./serve", "--port", "{port}"], ["serve"]),
        (["python", "-m", "http.server"], []),
        (["/usr/bin/env", "true"], []),
    ],
)
def test_the_files_of_a_command_are_those_of_its_folder(command: list[str], files: list[str]) -> None:
    assert list(files_of(command)) == files


def test_the_starter_is_copied_once_and_never_over_something(root: Path, stampede: Lab) -> None:
    (stampede.folder / "starter" / "__pycache__").mkdir()
    assert copy_starter(stampede)
    mine = root / "my" / "cache-stampede"
    assert sorted(path.name for path in mine.iterdir()) == ["app.py", "worker.py"]
    (mine / "app.py").write_text("mine")
    assert not copy_starter(stampede)
    assert (mine / "app.py").read_text() == "mine"
    assert [path.name for path in mine.parent.iterdir()] == ["cache-stampede"]


def test_a_place_that_takes_no_copy_is_the_machines_fault(root: Path, stampede: Lab) -> None:
    (root / "my").write_text("a file, where the folder should be")
    with pytest.raises(MachineError, match="the starter cannot be copied to my/cache-stampede"):
        copy_starter(stampede)
    assert not list(root.glob(f"my*/.*{os.getpid()}"))
