"""A submission that is a server's configuration: nginx runs it, and judges it before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.app import family_of
from runner.errors import LabError, LabsError, MachineError
from runner.images import image_of
from runner.lab import app_of, check_submission, read_lab, resolve_submission
from runner.stack.provision import Cache, NoBuildError
from runner.toolchains import find_nginx, find_program

if TYPE_CHECKING:
    from conftest import Kit

HERE = Path(__file__).parent
EDGE = HERE / "submissions" / "edge-cache-python"
ANSWER = HERE / "submissions" / "answer-nginx"
UNSURE = HERE / "labs" / "microservices" / "unsure"


@pytest.fixture
def mine(kit: "Kit") -> Path:
    """The configuration, as the submission of a lab that was written for Python."""
    try:
        find_nginx(Cache())
    except LabsError as error:
        pytest.fail(f"no nginx for the tests of nginx: {error}\nhint: {error.hint}")
    shutil.copytree(ANSWER, kit.root / "my" / "unsure")
    return kit.root / "my" / "unsure"


def test_a_lab_for_python_can_be_solved_by_a_configuration(kit: "Kit", mine: Path) -> None:
    done = kit.labs("run", "unsure")
    assert "ok the answer is right" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 2, "the other check never can judge"
    assert sorted(path.name for path in mine.iterdir()) == ["answer.conf", "app.toml", "nginx.conf.template"], "nothing is written there"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("nginx.conf.template", "proxy_cache answers;", "proxi_cache answers;", 'unknown directive "proxi_cache" in nginx.conf:19'),
        ("nginx.conf.template", "include answer.conf", "include answers.conf", 'open() "answers.conf" failed'),
        ("answer.conf", "return", "returns", 'unknown directive "returns" in answer.conf:3'),
    ],
)
def test_what_nginx_refuses_is_the_learners_and_no_failed_check(kit: "Kit", mine: Path, file: str, old: str, new: str, said: str) -> None:
    (mine / file).write_text((mine / file).read_text().replace(old, new))
    done = kit.labs("run", "unsure")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "x the app did not hold up" in done.stdout
    assert "my/unsure does not pass `nginx -t " in done.stdout
    assert said in done.stdout
    assert "mend it in my/unsure" in done.stdout
    assert not (kit.run_folder() / "app-1.log").exists(), "nothing was started"


def test_a_name_that_the_kit_cannot_fill_in_is_the_learners(kit: "Kit", mine: Path) -> None:
    conf = mine / "nginx.conf.template"
    conf.write_text(conf.read_text().replace("${HOME}", "${HOUSE}"))
    done = kit.labs("run", "unsure")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "nginx.conf.template:6: there is no ${HOUSE}" in done.stdout


def test_an_edge_that_is_a_program_is_judged_by_the_same_evidence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner", "run", "edge-cache", f"--submission={EDGE}", "--backend=embedded", f"--run-folder={tmp_path}", "--brief"],
        cwd=HERE.parent,
        env={key: value for key, value in os.environ.items() if key != "LABS_ROOT"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nPASS  edge-cache " in done.stdout


def test_a_replica_is_waited_for_with_all_its_processes() -> None:
    """In nginx others do the work: those that want a CPU are not the process that the kit has started."""
    with subprocess.Popen(["sleep", "60"]) as child:
        assert {os.getpid(), child.pid} <= set(family_of(os.getpid()))
        child.kill()
    assert family_of(child.pid) == [child.pid], "one that has ended is alone"


def test_in_docker_an_app_runs_in_the_image_that_has_its_program() -> None:
    assert [image_of([program]) for program in ("nginx", "node", "uvicorn", "./app")] == ["nginx", "node", "runtime", "runtime"]


# Which check holds


def test_a_labs_check_is_for_the_labs_command(tmp_path: Path) -> None:
    lab = read_lab(UNSURE)
    lab = lab.model_copy(update={"app": lab.app.model_copy(update={"check": ("true",)})})
    assert app_of(lab, tmp_path).check == ("true",)
    own = tmp_path / "app.toml"
    own.write_text('command = ["python", "edge.py"]\n')
    assert app_of(lab, tmp_path).check is None
    own.write_text('check = ["false"]\n')
    assert app_of(lab, tmp_path).check == ("false",)


def test_the_file_that_is_filled_in_must_be_there(tmp_path: Path) -> None:
    lab = read_lab(UNSURE)
    shutil.copytree(ANSWER, tmp_path / "answer")
    check_submission(lab, resolve_submission(lab, str(tmp_path / "answer")))
    (tmp_path / "answer" / "nginx.conf.template").rename(tmp_path / "answer" / "site.conf.template")
    with pytest.raises(LabError, match=r"has no nginx.conf, which `nginx .*; it has answer.conf, app.toml, site.conf.template"):
        resolve_submission(lab, str(tmp_path / "answer"))


# Where nginx comes from


class NoWheels(Cache):
    """A machine for which nobody publishes a wheel."""

    def wheel(self, project: str, version: str, sums: object) -> Path:
        raise NoBuildError(f"{project} {version} has no wheel for {sums and 'riscv64'}")


def test_where_no_wheel_fits_one_on_path_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nginx = tmp_path / "nginx"
    nginx.write_text("#!/bin/sh\n")
    nginx.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("nginx", NoWheels(tmp_path)).folder == tmp_path


def test_without_any_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="has no wheel for riscv64, and no nginx is on PATH") as raised:
        find_program("nginx", NoWheels(tmp_path))
    assert "install nginx 1.24 or newer" in raised.value.hint
