"""`labs verify`: what it proves, what it says, and what it leaves."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import psutil
import pytest

from runner.cell import Cell, Expectation
from runner.errors import MachineError
from runner.lab import read_lab
from runner.plan import Plan, expectations
from runner.stack.embedded import SERVERS
from runner.stack.embedded_redis import RedisServer
from runner.stack.provision import Cache
from runner.tally import margins, print_margins
from runner.verify import verify

if TYPE_CHECKING:
    from conftest import Kit

LABS = Path(__file__).parent / "labs"


def test_a_lab_that_holds(kit: "Kit") -> None:
    done = kit.labs("verify", "hits", "--output=out", "--seed=7")
    assert done.returncode == 0, done
    for line in (
        "ok   hits starter ",
        "ok   hits solution ",
        "ok   hits wrong/forgets-a-tenth ",
        "ok   hits wrong/numbers-twice ",
        "hits                      solution                                1 of 1 ",
        "hits                      hits counted                                        20         20               18",
        "4 passed, 0 failed",
    ):
        assert line in done.stdout
    data = json.loads((kit.root / "out" / "verify.json").read_text())
    assert [(cell["submission"], cell["verdict"], cell["problem"]) for cell in data["cells"]] == [
        ("starter", "FAIL", ""),
        ("solution", "PASS", ""),
        ("wrong/forgets-a-tenth", "FAIL", ""),
        ("wrong/numbers-twice", "FAIL", ""),
    ]
    assert {cell["seed"] for cell in data["cells"]} == {7}
    assert data["form"] == {"hits": []}
    (margin,) = data["margins"]
    assert (margin["check"], margin["what"], margin["is_upper"]) == ("test_every_hit_is_counted", "hits counted", False)
    assert margin["passing"] == [{"value": 20, "limit": 20}]
    assert margin["caught"] == [{"value": 10, "limit": 20}, {"value": 18, "limit": 20}]
    suite = ElementTree.parse(kit.root / "out" / "junit.xml").getroot()  # noqa: S314 - our own
    assert suite.attrib == {"name": "labs verify", "tests": "4", "failures": "0"}
    assert (kit.root / "out" / "hits-wrong-numbers-twice-1" / "report.json").exists()
    assert not (kit.root / "my").exists()


def test_a_lab_that_does_not(kit: "Kit") -> None:
    """A wrong answer that another check catches, one that cannot be judged, and a folder in bad form."""
    kit.edit("microservices/hits/lab.toml", '"test_no_two_hits_have_one_number"', '"test_every_hit_is_counted"')
    (kit.lab("hits") / "notes.txt").touch()
    done = kit.labs("verify", "hits", "unsure", "--output=out", "--only=wrong/numbers-twice", "--only=solution", "--jobs=2")
    assert done.returncode == 1, done
    assert "FORM  hits: notes.txt is no part of a lab: remove it" in done.stdout
    assert "FORM  hits: no wrong submission has test_no_two_hits_have_one_number first in its `fails`: nothing shows that it can fail" in done.stdout
    assert "not caught by test_every_hit_is_counted" in done.stdout
    assert "INCONCLUSIVE: test_the_storm_is_survived: no storm came" in done.stdout
    cells = {(cell["lab"], cell["submission"]): cell for cell in json.loads((kit.root / "out" / "verify.json").read_text())["cells"]}
    assert set(cells) == {("hits", "solution"), ("hits", "wrong/numbers-twice"), ("unsure", "solution")}
    assert cells["hits", "solution"]["problem"] == ""
    assert cells["hits", "wrong/numbers-twice"]["problem"] == "not caught by test_every_hit_is_counted"
    suite = ElementTree.parse(kit.root / "out" / "junit.xml").getroot()  # noqa: S314
    assert suite.attrib["failures"] == "2"
    assert {case.attrib["name"] for case in suite if len(case)} == {"hits wrong/numbers-twice", "unsure solution"}
    assert "BAD" in done.stdout


def test_words_of_an_app_that_cannot_be_written_do_no_harm(kit: "Kit") -> None:
    kit.edit("microservices/hits/test_lab.py", "    lab.at_least(", '    assert counted == 0, "\\0\\x1b[31m\\ud800 red"\n    lab.at_least(')
    done = kit.labs("verify", "hits", "--only=solution", "--output=out")
    assert done.returncode == 1, done
    assert "FAIL: test_every_hit_is_counted: ??[31m\\ud800 red" in done.stdout
    suite = ElementTree.parse(kit.root / "out" / "junit.xml").getroot()  # noqa: S314
    assert [failure.attrib["message"] for failure in suite.iter("failure")] == ["FAIL: test_every_hit_is_counted: ??[31m\\ud800 red"]


def test_bad_form_alone_is_a_fail(kit: "Kit") -> None:
    (kit.lab("hits") / "notes.txt").touch()
    done = kit.labs("verify", "hits", "--only=solution")
    assert done.returncode == 1
    assert "1 passed, 1 failed" in done.stdout


def test_a_cell_without_a_verdict_is_bad(kit: "Kit") -> None:
    kit.edit("microservices/hits/test_lab.py", "import pytest", "import no_such_module")
    done = kit.labs("verify", "hits", "--only=solution", "--repeat=2")
    assert done.returncode == 1
    assert done.stdout.count("no verdict (exit code 3), see .labs/verify/") == 4, "as they come, and at the end"
    assert "hits solution #2" in done.stdout
    assert "0 of 2 " in done.stdout


def test_what_cells_need_is_fetched_before_their_time_begins(kit: "Kit", monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Server(RedisServer):
        def fetch(self, cache: Cache) -> None:
            done.append("fetched")
            raise MachineError("offline")

    monkeypatch.setitem(SERVERS, "redis", Server)
    monkeypatch.setattr("runner.verify.run_cells", lambda *_: done.append("judged"))
    monkeypatch.setenv("LABS_ROOT", str(kit.root))
    verify(Plan(names=["bench"], only=["solution"], backend="embedded"))
    assert done == ["fetched", "judged"]


def test_nothing_to_verify_is_an_error(kit: "Kit") -> None:
    done = kit.labs("verify", "hits", "--only=wrong/nothing")
    assert done.returncode == 3
    assert done.stderr.startswith("ERROR  there is nothing to verify\n\nhint: ")
    done = kit.labs("verify", "hist")
    assert done.returncode == 3
    assert "no lab is called 'hist'; did you mean hits?" in done.stderr


@pytest.mark.parametrize(("output", "words"), [("labs", "labs is there already, and is no empty folder"), ("pyproject.toml/out", "cannot be made")])
def test_an_output_that_cannot_be_had_is_told_before_anything_runs(kit: "Kit", output: str, words: str) -> None:
    done = kit.labs("verify", "hits", f"--output={output}")
    assert (done.returncode, done.stdout) == (3, "")
    assert words in done.stderr
    assert "the kit itself failed" not in done.stderr


def test_a_lab_that_is_named_twice_is_proved_once(kit: "Kit") -> None:
    done = kit.labs("verify", "hits", "microservices/hits", "--only=solution")
    assert done.returncode == 0, done
    assert "1 passed, 0 failed" in done.stdout


def test_a_users_options_for_pytest_leave_no_check_out(kit: "Kit") -> None:
    done = kit.labs("verify", "hits", "--only=wrong/numbers-twice", PYTEST_ADDOPTS="-k counted")
    assert done.returncode == 0, done


def test_nothing_outlives_a_killed_verification(kit: "Kit", processes: Callable[[], list[psutil.Process]], eventually: Callable[..., Any]) -> None:
    process = kit.start("verify", "hits", "--busy")
    eventually(lambda: any("app.py" in " ".join(p.cmdline()) for p in running(processes())), "an app is up")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    eventually(lambda: not processes() and not list(kit.temporary.iterdir()), "all is gone")


def running(found: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_ctrl_c_ends_a_verification(kit: "Kit", processes: Callable[[], list[psutil.Process]], eventually: Callable[..., Any]) -> None:
    process = kit.start("verify", "hits", "unsure", "--jobs=2", "--busy")
    eventually(lambda: any("app.py" in " ".join(p.cmdline()) for p in running(processes())), "an app is up")
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 3, rest
    assert "interrupted; everything it started has ended" in rest
    assert processes() == []


def test_busy_uses_every_core(tmp_path: Path) -> None:
    """Its loops end with their block, and with a killed parent."""
    script = """
import os, psutil, sys
from runner.verify import kept_busy
if __name__ == "__main__":
    with kept_busy(True):
        mine = psutil.Process()
        while True:
            children = [c for c in mine.children() if "spawn_main" in " ".join(c.cmdline()) and "resource_tracker" not in " ".join(c.cmdline())]
            if len(children) == os.cpu_count() and all(c.cpu_times().user > 0.3 for c in children):
                break
    assert not any(c.is_running() for c in children)
    with kept_busy(False):
        assert not [c for c in mine.children() if "spawn_main" in " ".join(c.cmdline())]
    print("good")
"""
    (tmp_path / "script.py").write_text(script)
    env = {"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "good\n", done.stderr


# Cells


def check(name: str, outcome: str = "PASS", seen: str = "", blame: str = "", **comparison: Any) -> dict[str, Any]:
    return {"name": name, "outcome": outcome, "seen": seen, "blame": blame, "comparisons": [comparison] if comparison else []}


def report(verdict: str, *checks: dict[str, Any]) -> dict[str, Any]:
    return {"verdict": verdict, "checks": list(checks)}


SOLUTION = Expectation("solution", frozenset(), frozenset())
WRONG = Expectation("wrong/x", frozenset({"test_a", "test_b"}), frozenset({"test_c"}))


@pytest.mark.parametrize(
    ("expectation", "seen", "problem"),
    [
        (SOLUTION, report("PASS", check("test_a")), ""),
        (SOLUTION, report("FAIL", check("test_a", "FAIL", "3 of 4\nmore")), "FAIL: test_a: 3 of 4"),
        (SOLUTION, report("FAIL", check("test_a", "FAIL")), "FAIL: test_a: (no message)"),
        (SOLUTION, report("INCONCLUSIVE", check("test_a"), check("test_b", "INCONCLUSIVE", "calm")), "INCONCLUSIVE: test_b: calm"),
        (WRONG, report("FAIL", check("test_a", "FAIL"), check("test_b", "FAIL")), ""),
        (WRONG, report("FAIL", check("test_a", "FAIL"), check("test_b", "FAIL"), check("test_c", "FAIL")), ""),
        (WRONG, report("FAIL", check("test_a", "FAIL"), check("test_b")), "not caught by test_b"),
        (WRONG, report("FAIL", check("test_a", "FAIL"), check("test_b", "INCONCLUSIVE")), "not caught by test_b"),
        (WRONG, report("FAIL", *(check(f"test_{x}", "FAIL") for x in "abd")), "failed test_d, which lab.toml does not say"),
        (WRONG, report("PASS", check("test_a"), check("test_b")), "PASS, should fail test_a, test_b"),
        (WRONG, report("INCONCLUSIVE", check("test_a", "INCONCLUSIVE", "slow\nmore")), "INCONCLUSIVE, should fail test_a, test_b: slow"),
        (
            WRONG,
            report("FAIL", check("test_a", "FAIL", "app-1 died\nlog", "app"), check("test_b", "FAIL", "app-1 died", "app")),
            "FAIL, not judged by a check: app-1 died",
        ),
        (WRONG, report("ERROR", check("test_a", "FAIL"), check("test_b", "ERROR", "KeyError", "lab")), "ERROR, not judged by a check: KeyError"),
    ],
)
def test_what_a_cell_must_come_to(expectation: Expectation, seen: dict[str, Any], problem: str) -> None:
    """Rule 6: fails all of `fails`, nothing beside `fails` and `may_fail`, and a crash is not a catch."""
    assert expectation.judge(seen) == problem


def test_a_wrong_submission_may_leave_other_checks_without_a_judgement() -> None:
    seen = report("FAIL", check("test_a", "FAIL"), check("test_b", "FAIL"), check("test_d", "INCONCLUSIVE", "calm"))
    assert WRONG.judge(seen) == ""


def test_expectations_are_those_of_lab_toml() -> None:
    lab = read_lab(LABS / "microservices" / "hits")
    assert [e.submission for e in expectations(lab, Plan())] == ["starter", "solution", "wrong/forgets-a-tenth", "wrong/numbers-twice"]
    assert [(e.submission, set(e.fails)) for e in expectations(lab, Plan(only=["wrong/numbers-twice"]))] == [
        ("wrong/numbers-twice", {"test_no_two_hits_have_one_number"})
    ]
    assert expectations(lab, Plan(only=["wrong/nothing"])) == []


def test_a_sample_has_as_many_wrong_answers_as_asked_for() -> None:
    lab = read_lab(LABS / "microservices" / "hits")
    starter, solution, wrong = expectations(lab, Plan(sample=1))
    assert (starter.submission, solution.submission) == ("starter", "solution")
    assert wrong.submission.startswith("wrong/")
    assert expectations(lab, Plan(sample=2)) == expectations(lab, Plan(sample=9)) == expectations(lab, Plan())


def test_samples_of_the_days_to_come_are_all_wrong_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Day(datetime):
        number = 0

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Day":
            return cls.fromordinal(739_000 + cls.number)

    monkeypatch.setattr("runner.plan.datetime", Day)
    lab = read_lab(LABS / "microservices" / "hits")
    lab = lab.model_copy(update={"wrong": {f"bug-{n}": lab.wrong["numbers-twice"] for n in range(7)}})
    seen = []
    for Day.number in range(7):
        found = [e.submission for e in expectations(lab, Plan(sample=3))][2:]
        assert len(set(found)) == 3
        seen += found
    assert {found: seen.count(found) for found in seen} == {f"wrong/bug-{n}": 3 for n in range(7)}


def compared(submission: str, fails: set[str], value: float, limit: float = 20, *, is_upper: bool = False) -> Cell:
    """A cell whose test_a compared something."""
    seen = report("FAIL", check("test_a", what="hits", value=value, limit=limit, is_upper=is_upper, margin=1.0))
    return Cell(read_lab(LABS / "microservices" / "hits"), Expectation(submission, frozenset(fails), frozenset()), 1, report=seen)


def test_margins_take_the_solution_and_what_must_be_caught() -> None:
    cells = [
        compared("solution", set(), 25),
        compared("solution", set(), 22),
        compared("wrong/x", {"test_a"}, 5),
        compared("wrong/y", {"test_a"}, 30),  # caught by another comparison of that check
        compared("wrong/z", {"test_b"}, 1),  # not this check's to catch
    ]
    (row,) = margins(cells)
    assert (row["check"], row["what"], row["is_upper"]) == ("test_a", "hits", False)
    assert (row["passing"], row["caught"]) == ([{"value": 25, "limit": 20}, {"value": 22, "limit": 20}], [{"value": 5, "limit": 20}])


@pytest.mark.parametrize(
    ("cells", "printed"),
    [
        ([("solution", 25, 20), ("solution", 22, 20), ("wrong/x", 5, 20), ("wrong/x", 9, 20)], ["22", "20", "9"]),
        ([("wrong/x", 5, 20), ("solution", 25, 20), ("solution", 80, 70), ("wrong/x", 9, 40)], ["80", "70", "5 of 20"]),
        ([("wrong/x", 5, 20)], ["-", "20", "5"]),
    ],
)
def test_each_value_is_shown_beside_its_own_limit(
    cells: list[tuple[str, float, float]], printed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    print_margins([compared(submission, {"test_a"}, value, limit) for submission, value, limit in cells])
    worst, limit, nearest = printed
    assert capsys.readouterr().out.endswith(f"{'hits':<37} {worst:>16} {limit:>10} {nearest:>16}\n")


def test_beside_a_limit_of_nothing_the_values_themselves_count(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [("solution", 0), ("wrong/x", 7), ("wrong/x", 3)]
    print_margins([compared(submission, {"test_a"}, value, 0, is_upper=True) for submission, value in cells])
    assert capsys.readouterr().out.endswith(f"{0:>16} {0:>10} {3:>16}\n")
