"""Plain pytest on a lab is the same run as `labs run`: the same exit codes, the same reports."""

import errno
import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from docker.errors import DockerException
from redis import ResponseError

from runner.errors import AppError, Inconclusive, LabError, MachineError
from runner.plugin import MACHINE_HINT, judge_check
from runner.verdict import CheckResult, Outcome

if TYPE_CHECKING:
    import subprocess

    from conftest import Kit

    Done = subprocess.CompletedProcess[str]


def run_pytest(kit: "Kit", *arguments: str) -> "Done":
    """Pytest, as a person would call it in a checkout, but without the plugins of other packages: their imports take longer than a run."""
    return kit.python("-m", "pytest", "-p", "labs", "-p", "no:cacheprovider", *arguments, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")


def test_a_pass_and_its_report(kit: "Kit") -> None:
    done = kit.python("-m", "pytest", "labs/microservices/hits/test_lab.py", "--submission=solution", "--seed=7", "--junitxml=here.xml")
    assert done.returncode == 0, done
    assert "2 passed" in done.stdout
    assert re.search(r"=+ verdict of hits =+\nPASS  hits   solution   embedded   seed 7\n  ok every hit is counted ", done.stdout)
    assert json.loads((kit.run_folder() / "report.json").read_text())["verdict"] == "PASS"
    assert 'tests="2"' in (kit.root / "here.xml").read_text()


@pytest.mark.parametrize(
    ("lab", "submission", "code", "words"),
    [
        ("microservices/hits", "starter", 1, "FAIL  hits   starter "),
        ("microservices/hits", "labs/apps/crashes", 1, "x the app did not hold up"),
        ("microservices/unsure", "solution", 2, "INCONCLUSIVE  unsure "),
        ("microservices/unsure", "starter", 1, "FAIL  unsure "),
        ("microservices/hits", "wrong/no-such-bug", 3, "the submission 'wrong/no-such-bug' does not exist"),
    ],
)
def test_the_exit_code_is_the_verdicts(kit: "Kit", lab: str, submission: str, code: int, words: str) -> None:
    """Warnings are errors in this checkout, as in the kit's own: a run leaves nothing unclosed."""
    done = run_pytest(kit, f"labs/{lab}/test_lab.py", f"--submission={submission}")
    assert done.returncode == code, done.stdout
    assert words in done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("test_lab.py", "import pytest", "import pytest\nimport no_such_module", "No module named 'no_such_module'"),
        ("lab.toml", "ready_within_s", "ready_within", "ready_within: unknown key"),
        ("test_lab.py", "    return load", "    raise KeyError('of the scenario')", "! the lab is broken"),
    ],
)
def test_a_broken_lab_is_an_error_here_too(kit: "Kit", file: str, old: str, new: str, words: str) -> None:
    kit.edit(f"microservices/hits/{file}", old, new)
    done = run_pytest(kit, "labs/microservices/hits/test_lab.py", "--submission=solution")
    assert done.returncode == 3, done.stdout
    assert words in done.stdout


def test_an_empty_setting_is_none(kit: "Kit", tmp_path: Path) -> None:
    kit.environment |= {"LABS_BACKEND": "", "DOCKER_HOST": f"unix://{tmp_path}/engine.sock"}
    done = run_pytest(kit, "labs/microservices/hits/test_lab.py", "--submission=solution")
    assert done.returncode == 0, done.stdout


def test_labs_of_one_session_are_judged_each_and_the_worst_is_the_exit_code(kit: "Kit") -> None:
    done = run_pytest(kit, "labs/microservices", "--submission=solution")
    assert done.returncode == 2, done.stdout
    assert "PASS  hits " in done.stdout
    assert "INCONCLUSIVE  unsure " in done.stdout
    assert len(list((kit.root / ".labs" / "runs").iterdir())) == 2


@pytest.mark.parametrize(("submission", "code"), [("solution", 1), ("wrong/numbers-twice", 3)])
def test_of_several_labs_a_fail_outranks_what_cannot_be_judged_and_an_error_all(kit: "Kit", submission: str, code: int) -> None:
    """`unsure` can never judge, and has no such wrong submission."""
    kit.edit("microservices/hits/test_lab.py", "    assert numbers,", "    assert False, 'no number is right'\n    assert numbers,")
    done = run_pytest(kit, "labs/microservices", f"--submission={submission}")
    assert done.returncode == code, done.stdout
    assert f"FAIL  hits   {submission} " in done.stdout


def test_the_seed_repeats_what_is_random(kit: "Kit") -> None:
    numbers: list[tuple[int, str]] = []
    for seed in ([], ["--seed=5"], ["--seed=5"]):
        folder = kit.root / "runs" / str(len(numbers))
        arguments = [
            "labs/microservices/hits/test_lab.py",
            "-k",
            "counted",
            "--submission=solution",
            f"--run-folder={folder.relative_to(kit.root)}",
            *seed,
        ]
        assert run_pytest(kit, *arguments).returncode == 0
        report = json.loads((folder / "report.json").read_text())
        numbers.append((report["seed"], next(event["what"] for event in report["events"] if "number" in event["what"])))
    assert numbers[1] == numbers[2]
    assert numbers[1][0] == 5
    assert numbers[0] == (numbers[0][0], f"the day's number is {random.Random(numbers[0][0]).randrange(10**9)}"), "a drawn seed is told"


def test_tests_that_are_no_labs_are_left_alone(kit: "Kit") -> None:
    parametrized = "import pytest\n\n\n@pytest.mark.parametrize('lab', ['a'])\ndef test_passes(lab):\n    assert lab\n"
    (kit.root / "test_other.py").write_text(parametrized + "\n\ndef test_fails():\n    assert False\n")
    done = run_pytest(kit, "test_other.py")
    assert done.returncode == 1
    assert "verdict of" not in done.stdout
    assert run_pytest(kit, "test_other.py", "-k", "passes").returncode == 0
    (kit.root / "test_asks.py").write_text("def test_asks(lab):\n    pass\n")
    done = run_pytest(kit, "test_asks.py")
    assert done.returncode == 3
    assert "has no lab.toml" in done.stdout


def test_other_tests_beside_a_lab_count_too(kit: "Kit") -> None:
    (kit.root / "test_other.py").write_text("def test_fails():\n    assert False\n")
    done = run_pytest(kit, "test_other.py", "labs/microservices/hits/test_lab.py", "--submission=solution")
    assert done.returncode == 1
    assert "PASS  hits " in done.stdout


def test_a_verdict_whose_report_cannot_be_written_is_told_all_the_same(kit: "Kit") -> None:
    """As on a full disk."""
    kit.edit("microservices/hits/test_lab.py", "    return load", "    (lab.folder / 'report.tmp').mkdir()\n    return load")
    done = run_pytest(kit, "labs/microservices/hits/test_lab.py", "--submission=solution")
    assert done.returncode == 0, done
    assert "PASS  hits   solution " in done.stdout
    assert "  ! the report cannot be written: [Errno 21] " in done.stdout
    assert "hint: is the disk full, or read-only?" in done.stdout


# What a check came to


class Item:
    """As much of a pytest item as is asked for."""

    name = "test_it_holds"

    def function(self) -> None:
        """It holds.

        Why: it may break.
        """


def judge(error: BaseException | None, *, is_setup: bool = False, doubt: str = "") -> CheckResult:
    item: Any = Item()
    return judge_check(item, error, is_setup=is_setup, seconds=0.5, doubt=doubt)


LOCKED = "the kit waited in vain for what the app has locked in the database: (1205, 'Lock wait timeout')"
LET_GO = "end every transaction, and give back what LOCK TABLES has taken"
CHANGED = "the kit could no longer read or write the lab's tables: (1364, \"Field 'n' has no default\")"
LET_BE = "leave the columns of schema.sql as they are; one that you add needs a default (if the solution fails so, the lab is wrong)"
BUSY = "Redis could not serve the kit any more: BUSY Redis is busy running a script."
GIVE_BACK = "does a script of the app's never end, or does it never give connections back?"
BROKEN = "the lab's own code failed: run it with pytest to see where"


@pytest.mark.parametrize(
    ("error", "outcome", "blame", "seen", "hint"),
    [
        (None, Outcome.PASS, "", "", ""),
        (AssertionError("3 of 4\nassert 3 == 4"), Outcome.FAIL, "", "3 of 4", ""),
        (pytest.fail.Exception("3 of 4"), Outcome.FAIL, "", "3 of 4", ""),
        (Inconclusive("no storm"), Outcome.INCONCLUSIVE, "", "no storm", ""),
        (AppError("app-1 died", "mend it"), Outcome.FAIL, "app", "app-1 died", "mend it"),
        (LabError("no such peer", "see lab.toml"), Outcome.ERROR, "lab", "no such peer", "see lab.toml"),
        (MachineError("disk full", "tidy up"), Outcome.ERROR, "machine", "disk full", "tidy up"),
        (OSError(errno.ENOSPC, "No space left on device"), Outcome.ERROR, "machine", "OSError: [Errno 28] No space left on device", MACHINE_HINT),
        (DockerException("no engine"), Outcome.ERROR, "machine", "DockerException: no engine", MACHINE_HINT),
        (FileNotFoundError("x"), Outcome.ERROR, "lab", "FileNotFoundError: x", BROKEN),
        (AssertionError("stored: \udcff"), Outcome.FAIL, "", "stored: \\udcff", ""),
        (pymysql.OperationalError(1205, "Lock wait timeout"), Outcome.FAIL, "app", LOCKED, LET_GO),
        (pymysql.OperationalError(1364, "Field 'n' has no default"), Outcome.FAIL, "app", CHANGED, LET_BE),
        (ResponseError("BUSY Redis is busy running a script."), Outcome.FAIL, "app", BUSY, GIVE_BACK),
        (ResponseError("WRONGTYPE of key"), Outcome.ERROR, "lab", "ResponseError: WRONGTYPE of key", BROKEN),
        (pymysql.OperationalError(2013, "gone"), Outcome.ERROR, "lab", "OperationalError: (2013, 'gone')", BROKEN),
        (KeyError("x"), Outcome.ERROR, "lab", "KeyError: 'x'", BROKEN),
    ],
)
def test_the_type_of_an_error_says_whom_to_blame(error: Exception | None, outcome: Outcome, blame: str, seen: str, hint: str) -> None:
    result = judge(error)
    assert (result.outcome, result.blame, result.seen, result.hint) == (outcome, blame, seen, hint)
    assert (result.name, result.promised, result.why, result.seconds) == ("test_it_holds", "It holds.", "it may break.", 0.5)


def test_on_a_slow_machine_a_broken_promise_decides_nothing_and_a_kept_one_is_kept() -> None:
    result = judge(AssertionError("3 of 4"), doubt="the machine stood still for 2.0 s")
    assert (result.outcome, result.blame) == (Outcome.INCONCLUSIVE, "")
    assert result.seen == "the machine stood still for 2.0 s, so this may be no fault of the app: 3 of 4"
    assert judge(None, doubt="the machine stood still for 2.0 s").outcome is Outcome.PASS
    assert judge(AppError("app-1 died"), doubt="the machine stood still for 2.0 s").outcome is Outcome.FAIL


def test_an_assertion_of_the_scenario_is_no_broken_promise() -> None:
    result = judge(AssertionError("of the scenario"), is_setup=True)
    assert (result.outcome, result.blame) == (Outcome.ERROR, "lab")
    assert judge(AppError("app-1 ended"), is_setup=True).outcome is Outcome.FAIL
    assert judge(Inconclusive("the fault did not come"), is_setup=True).outcome is Outcome.INCONCLUSIVE
