"""What a verification is to judge."""

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from runner.plan import changed_files, read_shard
from runner.tally import summarise

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Kit


@pytest.mark.parametrize(("text", "shard"), [("1/1", (1, 1)), ("2/3", (2, 3))])
def test_a_shard(text: str, shard: tuple[int, int]) -> None:
    assert read_shard(text) == shard


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/"])
def test_no_shard(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the number's text says
        read_shard(text)


def take(kit: "Kit", lab: str, submission: str) -> None:
    """Make a submission the learner's own."""
    mine = kit.root / "my" / lab
    mine.mkdir(parents=True)
    for file in (kit.lab(lab) / submission).iterdir():
        (mine / file.name).write_text(file.read_text())


def submissions(kit: "Kit") -> list[tuple[str, str]]:
    (file,) = (kit.root / ".labs" / "verify").glob("*/verify.json")
    return [(cell["lab"], cell["submission"]) for cell in json.loads(file.read_text())["cells"]]


def test_mine_must_pass(kit: "Kit", tmp_path: "Path") -> None:
    take(kit, "hits", "solution")
    take(kit, "unsure", "starter")
    page = tmp_path / "summary.md"
    done = kit.labs("verify", "--mine", GITHUB_STEP_SUMMARY=str(page))
    assert done.returncode == 1, done.stdout
    assert submissions(kit) == [("hits", "mine"), ("unsure", "mine")]
    assert "1 passed, 1 failed" in done.stdout
    assert "### labs verify: 1 passed, 1 failed" in page.read_text()
    assert "| unsure | mine | no: 0 of 1 |" in page.read_text()
    assert "| hits | mine | yes: 1 of 1 |" in page.read_text()


def test_these_tests_write_into_no_summary_of_ci(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary-of-the-job.md")
    assert "GITHUB_STEP_SUMMARY" not in request.getfixturevalue("kit").environment


def test_a_shard_of_mine(kit: "Kit") -> None:
    take(kit, "hits", "solution")
    take(kit, "unsure", "starter")
    done = kit.labs("verify", "--mine", "--shard", "1/2")
    assert done.returncode == 0, done.stdout
    assert submissions(kit) == [("hits", "mine")]
    assert kit.labs("verify", "--shard", "3/2").returncode == 3


def test_nothing_of_mine(kit: "Kit") -> None:
    done = kit.labs("verify", "--mine")
    assert done.returncode == 3
    assert "there is nothing to verify under my/" in done.stderr


def git(kit: "Kit", *arguments: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    subprocess.run(["git", *names, *arguments], cwd=kit.root, check=True, capture_output=True)


def test_only_what_has_changed(kit: "Kit") -> None:
    git(kit, "init", "-q")
    git(kit, "add", ".")
    git(kit, "commit", "-q", "-m", "all")
    done = kit.labs("verify", "--changed", "HEAD")
    assert done.returncode == 0, done.stderr
    assert "0 passed, 0 failed" in done.stdout
    take(kit, "hits", "solution")
    done = kit.labs("verify", "--mine", "--changed", "HEAD", "--output", str(kit.root / "out"))
    assert [cell["lab"] for cell in json.loads((kit.root / "out" / "verify.json").read_text())["cells"]] == ["hits"]
    done = kit.labs("verify", "--changed", "no-such-revision")
    assert done.returncode == 3
    assert "git does not know what has changed since 'no-such-revision'" in done.stderr


def test_a_name_that_git_would_quote_has_changed_too(kit: "Kit", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_ROOT", str(kit.root))
    git(kit, "init", "-q")
    (kit.lab("hits") / "caf\u00e9.txt").touch()
    git(kit, "add", ".")
    git(kit, "commit", "-q", "-m", "all")
    (kit.lab("hits") / "caf\u00e9.txt").write_text("edited")
    (kit.lab("unsure") / 'of\n"two" lines').touch()
    folders = "labs/microservices/hits", kit.lab("unsure").relative_to(kit.root).as_posix()
    assert changed_files("HEAD") == [f"{folders[0]}/caf\u00e9.txt", f'{folders[1]}/of\n"two" lines']


def test_a_summary_of_nothing() -> None:
    assert summarise([], {"hits": ["README.md is missing"]}).startswith("### labs verify: 0 passed, 1 failed\n\n- **hits**: README.md is missing\n")
