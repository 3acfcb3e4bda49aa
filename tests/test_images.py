"""What the Docker backend's images are called and made from. No engine is needed."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound
from packaging.requirements import Requirement

from runner import image_base, recipe
from runner.errors import LabError, MachineError
from runner.image_base import find_local, pull
from runner.image_build import run_logged
from runner.image_maker import read_version
from runner.images import IMAGES, image_env, run_images, tag_of
from runner.recipe import LOCK, RECIPES, locked_for

PutProgram = Callable[[str, str], None]


def test_each_image_has_a_tag_of_twelve_hex_digits() -> None:
    assert set(RECIPES) == set(IMAGES)
    for name in IMAGES:
        assert re.fullmatch(rf"backend-labs/{name}:[0-9a-f]{{12}}", tag_of(name))


def test_compose_learns_the_tags_by_variables() -> None:
    assert image_env(["redis", "runtime"]) == {"LABS_REDIS_IMAGE": tag_of("redis"), "LABS_RUNTIME_IMAGE": tag_of("runtime")}


def test_the_lock_file_is_in_the_digest_of_the_runtime_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: RECIPES[name].digest() for name in IMAGES}
    changed = tmp_path / "requirements.lock"
    changed.write_text(f"# another comment\n{LOCK.read_text()}")
    monkeypatch.setattr(recipe, "LOCK", changed)
    assert {name: RECIPES[name].digest() for name in IMAGES} == before
    changed.write_text(LOCK.read_text().replace("uvicorn==", "uvicorn==9"))
    assert [name for name in IMAGES if RECIPES[name].digest() != before[name]] == ["runtime"]


def test_the_servers_settings_are_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: RECIPES[name].digest() for name in IMAGES}
    monkeypatch.setattr("runner.stack.embedded_kafka.SETTINGS", "log.retention.ms=1\n")
    monkeypatch.setattr("runner.stack.embedded_mysql.MYSQL", ("--mysqlx=ON",))
    assert [name for name in IMAGES if RECIPES[name].digest() != before[name]] == ["mysql", "kafka"]


def test_markers_are_judged_for_the_image_and_not_for_this_machine() -> None:
    text = """\
# a comment
one==1.0 ; python_full_version < '3.12' and sys_platform == 'darwin' \\
    --hash=sha256:aa
    # via something
one==2.0 ; python_full_version >= '3.12' or sys_platform != 'darwin' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
two==3.0 ; sys_platform == 'win32' \\
    --hash=sha256:dd
three==4.0 ; platform_machine == 'aarch64' \\
    --hash=sha256:ee
"""
    assert list(locked_for(text, "x86_64")) == ["one==2.0 --hash=sha256:bb --hash=sha256:cc"]
    assert list(locked_for(text, "aarch64")) == ["one==2.0 --hash=sha256:bb --hash=sha256:cc", "three==4.0 --hash=sha256:ee"]


def test_every_package_of_the_real_lock_file_is_pinned_once_with_its_sums() -> None:
    lines = list(locked_for(LOCK.read_text(), "x86_64"))
    names = [Requirement(line.partition(" --hash")[0]).name for line in lines]
    assert {"uvicorn", "fastapi", "redis", "pymysql", "kafka-python", "gevent"} <= set(names)
    assert len(names) == len(set(names))
    assert all("--hash=sha256:" in line for line in lines)


def test_an_unknown_image_is_named() -> None:
    with pytest.raises(LabError, match="there is no image 'postgres'"):
        run_images(argparse.Namespace(names=["postgres"], local=False, official=False))


def test_a_mirror_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(image_base.MIRROR, "http://127.0.0.1:1/debian")
    assert image_base.find_mirror() == "http://127.0.0.1:1/debian"


def test_without_apt_there_is_no_mirror_and_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(image_base.MIRROR, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (image_base.find_mirror(), image_base.apt_options(), image_base.apt_proxies()) == ("", [], {})


@pytest.fixture
def put_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PutProgram:
    """Put a program of a few lines of shell before all others on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


SOURCES = [("", "", "http://one.example/flat/"), ("", "main", "http://two.example/"), ("Debian", "main", "http://three.example/debian-security/")]


def test_a_source_of_apt_may_have_no_origin_and_no_component(monkeypatch: pytest.MonkeyPatch, put_program: PutProgram) -> None:
    monkeypatch.delenv(image_base.MIRROR, raising=False)
    fill_in = "printf '%s\\n' \"$3\" | sed 's@$(ORIGIN)@{}@; s@$(COMPONENT)@{}@; s@$(REPO_URI)@{}@'"
    sources = [*SOURCES, ("Debian", "main", "http://four.example/debian/")]
    put_program("apt-get", "\n".join(fill_in.format(*source) for source in sources))
    assert image_base.find_mirror() == "http://four.example/debian"


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was said; logs go to a checkout of the test's own."""
    (tmp_path / "labs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv("LABS_ROOT", str(tmp_path))
    monkeypatch.setattr("runner.image_build.SAY_EVERY_S", 0.1)
    return []


def test_a_failed_command_shows_its_last_lines_and_its_log(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(MachineError, match=r"making redis failed: .*exit code 3\n  \| E: Unable to connect to x") as raised:
        run_logged(["sh", "-c", "echo E: Unable to connect to x >&2; exit 3"], "redis", said.append)
    assert ".labs/images/redis.log" in str(raised.value)
    assert "mirror" in raised.value.hint


def test_a_long_command_says_now_and_then_where_it_is(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    script = "echo first step; n=0; until [ -e go ] || [ $((n += 1)) -gt 1000 ]; do sleep 0.01; done; [ -e go ]"

    def say(line: str) -> None:
        said.append(line)
        if "first step" in line:
            Path("go").touch()

    monkeypatch.chdir(tmp_path)
    run_logged(["sh", "-c", script], "mysql", say)
    assert "first step" in said[-1]


def test_a_command_that_does_not_read_what_it_is_fed_tells_by_its_exit_code(said: list[str]) -> None:
    with pytest.raises(MachineError, match=r"making label failed: .*exit code 5"):
        run_logged(["sh", "-c", "exit 5"], "label", said.append, text="x" * 1_000_000)


def test_a_pipe_that_breaks_blames_the_one_that_failed(said: list[str]) -> None:
    feed = [sys.executable, "-c", "import sys\nwhile True: sys.stdout.write('x' * 65536)"]
    with pytest.raises(MachineError, match=r"making base failed: .*`sh -c` ended with exit code 4\n"):
        run_logged(feed, "base", said.append, into=["sh", "-c", "echo no room >&2; exit 4"])


class Images:
    """The images of an engine whose docker command does no more than note, in a file, what it is to import."""

    def __init__(self, noted: Path) -> None:
        self.noted = noted

    def tags(self) -> list[str]:
        return self.noted.read_text().split() if self.noted.exists() else []

    def note(self, tags: list[str]) -> None:
        self.noted.write_text("".join(f"{tag}\n" for tag in tags))

    def get(self, reference: str) -> Any:
        if reference not in self.tags():
            raise ImageNotFound(reference)
        return SimpleNamespace(tag=lambda repository, tag: self.note([*self.tags(), f"{repository}:{tag}"]))

    def remove(self, reference: str, *, noprune: bool) -> None:
        self.note([tag for tag in self.tags() if tag != reference])


def test_a_debian_that_could_not_be_made_whole_does_not_get_its_tag(
    tmp_path: Path, said: list[str], put_program: PutProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv(image_base.MIRROR, "http://127.0.0.1:1/debian")
    images = Images(tmp_path / "images")
    client: Any = SimpleNamespace(images=images)
    put_program("docker", f"cat >/dev/null; echo \"$3\" >>'{images.noted}'")
    put_program("unshare", "echo half of it; exit 1")
    with pytest.raises(MachineError, match="making base failed: `unshare --mount` ended with exit code 1\n"):
        find_local(client, RECIPES["redis"], said.append)
    assert images.tags() == [f"{image_base.REPOSITORY}:making"]
    put_program("unshare", "echo all of it")
    base = find_local(client, RECIPES["redis"], said.append)
    assert images.tags() == [base.reference]


def test_an_engine_that_goes_while_it_pulls_is_told(said: list[str]) -> None:
    def go(*_: object, **__: object) -> None:
        raise ConnectionError("Connection aborted.")

    client: Any = SimpleNamespace(api=SimpleNamespace(pull=go))
    with pytest.raises(MachineError, match=r"redis:8 cannot be pulled: Connection aborted\."):
        pull(client, "redis:8", said.append)


def test_an_image_that_lacks_its_program_is_told() -> None:
    def fail(*_: object, **__: object) -> None:
        raise APIError("500 Server Error", explanation="exec: redis-server: not found")

    client: Any = SimpleNamespace(containers=SimpleNamespace(run=fail))
    with pytest.raises(MachineError, match=r"the new image of redis does not work: .*redis-server: not found"):
        read_version(client, RECIPES["redis"], "backend-labs/redis:making")
