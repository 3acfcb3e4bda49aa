"""A submission that is a server's configuration, in the image that has the server."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Kit

ANSWER = Path(__file__).parent.parent / "submissions" / "answer-nginx"


@pytest.fixture
def mine(in_docker: "Kit") -> Path:
    """The configuration, as the submission of a lab that was written for Python."""
    shutil.copytree(ANSWER, in_docker.root / "my" / "unsure")
    return in_docker.root / "my" / "unsure"


def test_nginx_runs_without_rights_and_writes_its_cache(in_docker: "Kit", mine: Path) -> None:
    done = in_docker.labs("run", "unsure")
    assert "ok the answer is right" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 2, "the other check never can judge"


def test_what_nginx_refuses_is_the_learners_here_too(in_docker: "Kit", mine: Path) -> None:
    conf = mine / "nginx.conf.template"
    conf.write_text(conf.read_text().replace("proxy_cache answers;", "proxi_cache answers;"))
    done = in_docker.labs("run", "unsure")
    assert done.returncode == 1, done.stdout + done.stderr
    assert 'unknown directive "proxi_cache" in nginx.conf:19' in done.stdout


def test_a_configuration_reads_no_file_of_the_host(in_docker: "Kit", mine: Path) -> None:
    secret = in_docker.root / "secret.conf"
    secret.write_text("# of the host\n")
    (mine / "answer.conf").write_text(f"include {secret};\n{(mine / 'answer.conf').read_text()}")
    done = in_docker.labs("run", "unsure")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "secret.conf" in done.stdout
    assert "No such file or directory" in done.stdout
