"""`labs run` on submissions of every kind, good and bad, as a person would type it."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from runner.judge import is_same_tree

if TYPE_CHECKING:
    from conftest import Kit

Processes = Callable[[], list[psutil.Process]]


def test_a_pass(kit: "Kit") -> None:
    done = kit.labs("run", "hits", "--submission=solution", "--seed=7")
    assert done.returncode == 0, done
    first, *_, last = done.stdout.splitlines()
    assert first == "hits: Hits. Judging labs/microservices/hits/solution with no server."
    assert last == "next: read labs/microservices/hits/debrief.md: why it works, and what it costs; then `make next`"
    assert "\nPASS  hits   solution   embedded   seed 7\n  ok every hit is counted   ok no two hits have one number\n" in done.stdout
    assert re.search(r"^  20 requests, 0 without an answer, \d\.\d s of load, \d\.\d s in all$", done.stdout, re.MULTILINE)
    assert re.search(r"^ +\d\.\d s  app ready\n +\d\.\d s  the day's number is \d+\n +\d\.\d s  the visitors come$", done.stderr, re.MULTILINE)


def test_a_fail_says_what_was_promised_what_was_seen_and_why(kit: "Kit") -> None:
    done = kit.labs("run", "hits", "--submission=starter", "--seed=7")
    assert done.returncode == 1, done
    assert (
        """
  x every hit is counted
      promised  Every hit is counted.
      seen      10 of 20 hits counted
                the last was 200
      why       the count is read, and written later.
      look at   .labs/runs/"""
        in done.stdout
    )
    assert "  ok no two hits have one number\n" in done.stdout
    assert done.stdout.endswith("next: make hint NAME=hits\n")
    folder = kit.run_folder()
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.html", "junit.xml", "history.jsonl", "app-1.log", "load.log"}
    report = json.loads((folder / "report.json").read_text())
    assert (report["verdict"], report["lab"], report["submission"], report["seed"]) == ("FAIL", "hits", "starter", 7)
    assert report["requests"] == sum('"kind"' not in line for line in (folder / "history.jsonl").read_text().splitlines()) == 20
    junit = (folder / "junit.xml").read_text()
    assert 'tests="2"' in junit
    assert 'failures="1"' in junit
    assert "10 of 20 hits counted" in junit


def test_a_users_options_for_pytest_leave_no_check_out(kit: "Kit") -> None:
    done = kit.labs("run", "hits", "--submission=starter", PYTEST_ADDOPTS="-x")
    assert done.returncode == 1
    assert "  ok no two hits have one number\n" in done.stdout


def test_brief_gives_no_advice_and_the_run_folder_can_be_chosen(kit: "Kit") -> None:
    done = kit.labs("run", "hits", "--submission=starter", "--brief", "--run-folder=here/below")
    assert done.returncode == 1
    assert "next:" not in done.stdout
    assert (kit.root / "here" / "below" / "report.json").exists()
    assert not (kit.root / ".labs").exists()


def test_a_run_folder_is_for_one_run(kit: "Kit") -> None:
    first, second = (kit.labs("run", "hits", "--submission=solution", "--run-folder=here") for _ in range(2))
    assert first.returncode == 0, first
    assert second.returncode == 3
    assert second.stderr.startswith("ERROR  here holds the report of another run\n\nhint: ")


def test_a_run_folder_that_cannot_be_made_is_told(kit: "Kit") -> None:
    done = kit.labs("run", "hits", "--submission=solution", "--run-folder=pyproject.toml/here")
    assert done.returncode == 3
    assert done.stderr.startswith("ERROR  pyproject.toml/here cannot be made: ")
    assert "Traceback" not in done.stderr


# Apps that do not hold up


LOG = r" +log: (.*/app-1\.log)\n\n +hint: "
UNREADY = r"app-1 did not answer GET /healthz within 3 s \(.*Connection refused\)\n"
APP_PROBLEMS = {
    "crashes": r"app-1 ended before it answered GET /healthz \(exit code 1\)\n +\| about to import\n(?s:.*)"
    rf"ModuleNotFoundError: No module named 'a_module_that_is_not_there'\n{LOG}it did not start: mend it in .*/apps/crashes and",
    "exits-later": rf"app-1 died while it served \(exit code 7\)\n(?: +\| .*\n)* +\| three is enough\n(?: +\| .*\n)*{LOG}nobody killed it",
    "never-ready": rf"{UNREADY} +\| still loading\n{LOG}listen on \$PORT and",
    "other-port": rf"{UNREADY} +it listens on port \d+ instead of \$PORT=\d+\n +\| \(it printed nothing\)\n{LOG}listen on the port in \$PORT",
}


@pytest.mark.parametrize("app", APP_PROBLEMS)
def test_an_app_that_does_not_hold_up_is_no_failed_check(kit: "Kit", app: str) -> None:
    done = kit.labs("run", "hits", kit.submission(app))
    assert done.returncode == 1, done
    assert done.stdout.count("  x the app did not hold up\n") == 1
    assert "promised" not in done.stdout
    problem = re.search(APP_PROBLEMS[app], done.stdout)
    assert problem, done.stdout
    assert Path(problem[1]).exists()
    report = json.loads((kit.run_folder() / "report.json").read_text())
    assert [(check["outcome"], check["blame"]) for check in report["checks"]] == [("FAIL", "app")] * 2


def test_an_app_that_answers_nothing_fails_its_checks(kit: "Kit") -> None:
    kit.edit("microservices/hits/locustfile.py", "network_timeout = 10.0", "network_timeout = 0.5")
    done = kit.labs("run", "hits", kit.submission("idles"))
    assert done.returncode == 1
    assert "seen      0 of 20 hits counted" in done.stdout
    assert "seen      no hit was answered" in done.stdout
    assert "2 requests, 2 without an answer" in done.stdout


def test_a_flood_of_output_does_no_harm(kit: "Kit") -> None:
    done = kit.labs("run", "hits", kit.submission("floods"))
    assert done.returncode == 0, done
    log = kit.run_folder() / "app-1.log"
    assert 8_000_000 < log.stat().st_size < 9_000_000
    assert log.read_bytes().rstrip().endswith(b"y" * 1000), "its last words are kept"


@pytest.mark.parametrize("app", ["ignores-sigterm", "leaves-children"])
def test_an_app_that_will_not_go_is_ended(kit: "Kit", app: str, processes: Processes) -> None:
    """When the command returns, not later: the `kit` fixture would wait."""
    done = kit.labs("run", "hits", kit.submission(app))
    assert done.returncode == 0, done
    assert processes() == []


# No verdict on the app


def test_a_run_that_cannot_judge(kit: "Kit") -> None:
    done = kit.labs("run", "unsure", "--submission=solution")
    assert done.returncode == 2
    assert "INCONCLUSIVE  unsure" in done.stdout
    assert "  ? the storm is survived\n      promised  A storm does no harm.\n      seen      no storm came\n" in done.stdout
    assert done.stdout.endswith("next: this machine or this run did not let the kit judge; close what is busy and run again\n")


def test_a_broken_promise_outranks_what_cannot_be_judged(kit: "Kit") -> None:
    done = kit.labs("run", "unsure", "--submission=starter")
    assert done.returncode == 1
    assert "  x the answer is right\n" in done.stdout
    assert "  ? the storm is survived\n" in done.stdout
    assert not (kit.root / ".labs" / "progress.json").exists(), "a submission that is not the learner's says nothing of him"
    assert not (kit.root / "my").exists()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"""Hits:', 'def broken(:\n"""Hits:', "SyntaxError: invalid syntax"),
        ("import pytest", "import pytest\nimport no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def test_", "def no_test_", "it has no check: no function is called test_..."),
    ],
)
def test_a_broken_test_lab_is_an_error(kit: "Kit", old: str, new: str, complaint: str) -> None:
    kit.edit("microservices/hits/test_lab.py", old, new)
    done = kit.labs("run", "hits", "--submission=solution")
    assert done.returncode == 3
    assert done.stderr.startswith("ERROR  labs/microservices/hits/test_lab.py could not be run\n")
    assert complaint in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("lab.mark(f", "lab.marc(f", "AttributeError: 'Run' object has no attribute 'marc'"),
        ('"hits": HITS}', '"hits": {HITS}}', "TypeError: Object of type set is not JSON serializable"),
        ("    return load", "    assert load is None, 'of the scenario'\n    return load", "AssertionError: of the scenario"),
        ("return load", "return load.missing", "AttributeError: 'Load' object has no attribute 'missing'"),
    ],
)
def test_a_scenario_that_fails_is_the_labs_fault(kit: "Kit", old: str, new: str, complaint: str) -> None:
    kit.edit("microservices/hits/test_lab.py", old, new)
    done = kit.labs("run", "hits", "--submission=solution")
    assert done.returncode == 3, done
    assert "ERROR  hits" in done.stdout
    assert done.stdout.count("  ! the lab is broken\n") == 1
    assert complaint in done.stdout
    assert "run it with pytest to see where" in done.stdout


def test_a_broken_locustfile_is_the_labs_fault(kit: "Kit") -> None:
    kit.edit("microservices/hits/locustfile.py", "raise StopUser", "raise KeyError('of the locustfile')")
    kit.edit("microservices/hits/test_lab.py", "at_most_s=10", "at_most_s=0.5")
    done = kit.labs("run", "hits", "--submission=solution")
    assert done.returncode == 3, done
    assert re.search(r"  ! the lab is broken\n      the locustfile failed \d+ times; the first:\n", done.stdout)
    assert "KeyError: 'of the locustfile'" in done.stdout


def test_a_broken_lab_toml_is_told_by_line_and_key(kit: "Kit") -> None:
    kit.edit("microservices/hits/lab.toml", "ready_within_s = 3.0", "ready_within = 3.0\nreplicas = 0")
    done = kit.labs("run", "hits", "--submission=solution")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("ERROR  labs/microservices/hits/lab.toml has 2 problems\n")
    assert "line 8: [app] ready_within: unknown key; did you mean ready_within_s" in done.stderr
    assert "line 9: [app] replicas: " in done.stderr


def test_an_unknown_lab_gets_the_nearest_name(kit: "Kit") -> None:
    done = kit.labs("run", "hit")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "ERROR  no lab is called 'hit'; did you mean hits?\n\nhint: `make list` shows all labs\n"


@pytest.mark.parametrize(
    ("submission", "complaint"),
    [
        ("wrong/no-such-bug", "ERROR  the submission 'wrong/no-such-bug' does not exist"),
        ("elsewhere", "ERROR  the submission 'elsewhere' does not exist: there is no folder elsewhere"),
        ("labs/middleware", "ERROR  the submission labs/middleware has no app.py, which `python app.py` runs; it has bench"),
        ("labs/apps/idles/app.py", "ERROR  the submission 'labs/apps/idles/app.py' is a file"),
    ],
)
def test_a_submission_that_is_none(kit: "Kit", submission: str, complaint: str) -> None:
    done = kit.labs("run", "hits", f"--submission={submission}")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(complaint)
    assert "\n\nhint: " in done.stderr
    assert not (kit.root / ".labs").exists(), "nothing was begun"


def test_a_command_that_is_not_there_is_told(kit: "Kit") -> None:
    kit.edit("microservices/hits/lab.toml", '["python", "app.py"]', '["no-such-program", "app.py"]')
    done = kit.labs("run", "hits", "--submission=solution")
    assert done.returncode == 3, done
    assert "the submission needs `no-such-program`, which is not on PATH" in done.stdout + done.stderr


def test_a_wrong_root_is_told(kit: "Kit", tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = kit.labs("run", "hits", LABS_ROOT=str(tmp_path / "elsewhere"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"ERROR  {tmp_path}/elsewhere is no checkout of backend-labs: it has no labs and no pyproject.toml\n\n"
        "hint: unset LABS_ROOT, or set it to a checkout\n"
    )


def test_a_folder_for_runs_that_cannot_be_made_is_told(kit: "Kit") -> None:
    (kit.root / ".labs").touch()
    done = kit.labs("run", "hits", "--submission=solution")
    assert done.returncode == 3, done
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("ERROR  the run's folder cannot be made: ")
    assert "\n\nhint: " in done.stderr


def test_a_cache_folder_that_cannot_be_used_is_told(kit: "Kit") -> None:
    """A lab without servers needs none."""
    (kit.root / "file").touch()
    cache = str(kit.root / "file" / "cache")
    assert kit.labs("run", "hits", "--submission=solution", LABS_CACHE_DIR=cache).returncode == 0
    done = kit.labs("run", "bench", "--submission=solution", LABS_CACHE_DIR=cache)
    assert done.returncode == 3, done
    assert "  ! the machine or the kit is in the way\n" in done.stdout
    assert cache in done.stdout


# The learner's own


def test_the_first_run_copies_the_starter_and_its_fail_is_the_demonstration(kit: "Kit") -> None:
    done = kit.labs("run", "hits", "--demonstrate")
    assert done.returncode == 0, done
    assert "my/hits/ is new: a copy of the starter, yours to edit. The incident is in labs/microservices/hits/README.md.\n" in done.stdout
    assert "FAIL  hits   mine " in done.stdout
    assert (
        "This is the incident: the starter works in a demo and fails here. Edit my/hits/ and run again.\nnext: make hint NAME=hits\n" in done.stdout
    )
    assert is_same_tree(kit.root / "my/hits", kit.lab("hits") / "starter")
    again = kit.labs("run", "hits")
    assert again.returncode == 1, "only --demonstrate, which is make lab's, takes it for a success"
    assert "is new" not in again.stdout
    assert not (kit.root / ".labs" / "progress.json").exists(), "the untouched starter says nothing of the learner"


def test_an_edited_copy_is_judged_as_the_learners(kit: "Kit") -> None:
    mine = kit.root / "my" / "hits"
    mine.mkdir(parents=True)
    app = (kit.lab("hits") / "starter" / "app.py").read_text()
    (mine / "app.py").write_text(app + "\n# edited\n")
    done = kit.labs("run", "hits", "--demonstrate")
    assert done.returncode == 1, "an edited copy that fails is a FAIL"
    assert "This is the incident" not in done.stdout
    assert json.loads((kit.root / ".labs" / "progress.json").read_text())["labs"]["hits"]["state"] == "failed"
    (mine / "app.py").write_text((kit.lab("hits") / "solution" / "app.py").read_text())
    assert kit.labs("run", "hits").returncode == 0
    assert json.loads((kit.root / ".labs" / "progress.json").read_text())["labs"]["hits"]["state"] == "passed"


def test_what_is_edited_during_a_run_is_not_what_it_judges(kit: "Kit") -> None:
    edit = "(lab.submission.path / 'app.py').write_text('# edited')"
    kit.edit("microservices/hits/test_lab.py", "    return load", f"    {edit}\n    return load")
    done = kit.labs("run", "hits", "--demonstrate")
    assert done.returncode == 0, done
    assert "This is the incident: the starter works in a demo and fails here." in done.stdout
    assert not (kit.root / ".labs" / "progress.json").exists()


# Interrupted


MOMENTS = {"at the start": "Judging ", "when the app is ready": "app ready", "under load": "the visitors come"}


def read_until(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"it ended without saying {words!r}")


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_ends_all_at_any_moment(kit: "Kit", moment: str, processes: Processes) -> None:
    process = kit.start("run", "hits", kit.submission("never-ready" if moment == "at the start" else "idles"))
    read_until(process, MOMENTS[moment])
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 3, rest
    assert rest.endswith("\ninterrupted; everything it started has ended\n")
    assert "Traceback" not in rest
    assert [p for p in processes() if p.pid != process.pid] == [], "when the command returns, not later"
    assert list(kit.temporary.iterdir()) == []


@pytest.mark.parametrize(("moment", "signo"), [*((moment, signal.SIGKILL) for moment in MOMENTS), ("under load", signal.SIGTERM)])
def test_nothing_outlives_a_killed_run(kit: "Kit", moment: str, signo: signal.Signals, processes: Processes, eventually: Callable[..., Any]) -> None:
    process = kit.start("run", "hits", kit.submission("never-ready" if moment == "at the start" else "leaves-children-and-idles"))
    read_until(process, MOMENTS[moment])
    if moment != "at the start":
        assert len(processes()) >= 6, "runner, guard, app and its three children"
    process.send_signal(signo)
    process.wait(10)
    eventually(lambda: not processes() and not list(kit.temporary.iterdir()), "all is gone")


def test_keep_leaves_all_up_until_ctrl_c(kit: "Kit", processes: Processes) -> None:
    process = kit.start("run", "hits", "--submission=starter", "--keep")
    read_until(process, "FAIL  hits   starter")
    read_until(process, "kept up until Ctrl-C:")
    assert process.stdout is not None
    address = re.fullmatch(r"  app-1 +(http://127\.0\.0\.1:\d+)\n", process.stdout.readline())
    assert address
    done = kit.python("-c", f"import urllib.request as r; print(r.urlopen('{address[1]}/hits').read())")
    assert "10" in done.stdout
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 1, "the verdict stands"
    assert processes() == []


def test_ctrl_c_after_a_scenario_that_failed_is_no_broken_lab(kit: "Kit") -> None:
    broken = "@pytest.fixture\ndef broken(lab):\n    raise KeyError('of the scenario')\n\n\ndef test_every_hit_is_counted(broken, lab):"
    kit.edit("microservices/hits/test_lab.py", "def test_every_hit_is_counted(visit, lab):", broken)
    process = kit.start("run", "hits", kit.submission("idles"))
    read_until(process, MOMENTS["under load"])
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 3, rest
    assert rest.endswith("\ninterrupted; everything it started has ended\n")
    assert "could not be run" not in rest


def test_after_ctrl_c_nothing_is_kept_up(kit: "Kit", processes: Processes) -> None:
    process = kit.start("run", "hits", kit.submission("idles"), "--keep")
    read_until(process, MOMENTS["under load"])
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 3, rest
    assert "kept up" not in rest
    assert processes() == []


def test_two_runs_side_by_side_do_not_meet(kit: "Kit") -> None:
    both = [kit.start("run", "hits", f"--submission={which}") for which in ("solution", "starter")]
    texts = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 1], texts
    assert len(list((kit.root / ".labs" / "runs").iterdir())) == 2


# Trees


def test_trees_are_the_same_by_names_and_content(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "below" / "app.py").write_text("same")
    one, other = tmp_path / "one", tmp_path / "other"
    assert is_same_tree(one, other)
    (other / "below" / "app.py").write_text("SAME")
    assert not is_same_tree(one, other)
    (other / "below" / "app.py").write_text("same")
    (other / "more.py").touch()
    assert not is_same_tree(one, other)
    assert not is_same_tree(other, one)


def test_what_python_or_the_finder_leaves_is_no_edit(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text("same")
    (tmp_path / "one" / "__pycache__").mkdir()
    (tmp_path / "one" / "__pycache__" / "app.pyc").touch()
    (tmp_path / "one" / ".DS_Store").touch()
    assert is_same_tree(tmp_path / "one", tmp_path / "other")
