"""Labs written for Python, solved in other languages and by libraries of the field: the submissions of tests/submissions, through the real kit."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.errors import LabsError
from runner.lab import Submission, read_lab
from runner.run import Run
from runner.stack.provision import Cache
from runner.toolchains import find_go

HERE = Path(__file__).parent
SUBMISSIONS = HERE / "submissions"
BENCH = HERE / "labs" / "middleware" / "bench"
WITHIN_S = 600.0  # the first build compiles all of Go's standard library that it uses

IDLE_GO = """\
package main

import "time"

func main() {
	for {
		time.Sleep(time.Hour)
	}
}
"""


@pytest.fixture(scope="module")
def go() -> None:
    """Go is there, or comes: its size is said first. Without it these tests fail, for they are about it."""
    try:
        find_go(Cache())
    except LabsError as error:
        pytest.fail(f"no Go for the tests of Go: {error}\nhint: {error.hint}")


def judge(lab: str, submission: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """`labs run` on the checkout's own labs."""
    words = ["run", lab, f"--submission={submission}", "--backend=embedded", f"--run-folder={folder}", "--brief"]
    return subprocess.run(
        [sys.executable, "-m", "runner", *words],
        cwd=HERE.parent,
        env={key: value for key, value in os.environ.items() if key != "LABS_ROOT"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


# Go


def test_a_lab_for_python_can_be_solved_in_go(go: None, tmp_path: Path) -> None:
    done = judge("cache-stampede", SUBMISSIONS / "cache-stampede-go", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nPASS  cache-stampede " in done.stdout


def test_the_go_of_the_labs_is_formatted(go: None) -> None:
    gofmt = find_go(Cache()).folder / "gofmt"
    done = subprocess.run([gofmt, "-l", HERE.parent / "labs", SUBMISSIONS], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_a_compile_error_is_the_learners_and_no_failed_check(go: None, kit: Any) -> None:
    mine = kit.root / "my" / "hits"
    shutil.copytree(SUBMISSIONS / "cache-stampede-go", mine)
    main = mine / "main.go"
    main.write_text(main.read_text().replace("token := newToken()", "token := newTokn()"))
    line = main.read_text()[: main.read_text().index("newTokn")].count("\n") + 1
    done = kit.labs("run", "hits", within_s=WITHIN_S)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "x the app did not hold up" in done.stdout
    assert "my/hits cannot be built: `go build -o {out}/app .` ended with exit code 1" in done.stdout
    assert f"./main.go:{line}:12: undefined: newTokn" in done.stdout
    assert "undefined: newTokn" in (kit.run_folder() / "build.log").read_text()


# Node


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed: the kit finds it, it does not bring it")
def test_a_lab_for_python_can_be_solved_in_node(kit: Any) -> None:
    done = kit.labs("run", "hits", f"--submission={SUBMISSIONS / 'hits-node'}")
    assert done.returncode == 0, done.stdout + done.stderr
    broken = kit.root / "broken"
    shutil.copytree(SUBMISSIONS / "hits-node", broken)
    (broken / "server.js").write_text("const x = ;")
    done = kit.labs("run", "hits", f"--submission={broken}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SyntaxError: Unexpected token ';'" in done.stdout


# Libraries


def test_a_library_of_the_field_passes_as_it_is(tmp_path: Path) -> None:
    done = judge("cache-stampede", SUBMISSIONS / "cache-stampede-dogpile", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def served(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The lab `bench` with a worker in Go, and a library for the replicas in Python."""
    mine = tmp_path / "mine"
    shutil.copytree(BENCH / "solution", mine)
    (mine / "app.toml").write_text('build = ["go", "build", "-o", "{out}/worker", "."]\n[extra.worker]\ncommand = ["{out}/worker"]\n')
    (mine / "go.mod").write_text("module worker\n\ngo 1.22\n")
    (mine / "main.go").write_text(IDLE_GO)
    shutil.copy(SUBMISSIONS / "cache-stampede-dogpile" / "requirements.txt", mine)
    folder = tmp_path / "run"
    folder.mkdir()
    one = Run(read_lab(BENCH), Submission("mine", mine, "path"), folder, 7)
    try:
        one.start(with_load=False)
        yield one
    finally:
        one.stop()


def test_each_process_of_an_app_finds_what_is_its_own(go: None, served: Run) -> None:
    """And a peer, which is the lab's, finds nothing of it."""
    env = served.call("GET", "/env").json()
    shims, packages = env["PYTHONPATH"].split(os.pathsep)
    assert Path(shims).name == "shims"
    assert (Path(packages) / "dogpile" / "cache").is_dir()
    assert served.skew("app-1", 60), "the clock can still be shifted"
    worker = psutil.Process(served.stack.pid("worker-1"))
    assert Path(worker.exe()).parent.name == ".out"
    assert Path(worker.cwd()) == Path(worker.exe()).parent.parent
    assert {"REDIS_URL", "PRICE_LIST_URL", "REPLICA"} <= set(worker.environ())
    assert not {"GOCACHE", "GOPATH", "CGO_ENABLED"} & set(worker.environ())
    assert packages not in psutil.Process(served.stack.pid("price-list")).environ()["PYTHONPATH"]
    assert Path(worker.environ()["HOME"]).is_relative_to(tempfile.gettempdir())
