"""The command line: what it offers, and its exit codes for what is wrongly asked."""

import json
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from runner.cli import build_parser, main

if TYPE_CHECKING:
    from conftest import Kit

    from runner.judge import Order

COMMANDS = {"ui", "watch", "images", "compare", "reset", "solution", "debrief", "next", "run", "list", "verify", "load", "hint", "tour"}
COMMANDS |= {"new", "doctor"}


def test_help_names_every_command_and_its_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    listed = set(re.findall(r"^    (\w+) ", text, re.MULTILINE))
    assert listed == COMMANDS
    assert text.startswith("usage: labs ")
    assert "Production incidents that you can run." in text


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_and_each_of_its_options_is_explained(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: labs {command} ")
    commands = build_parser()._subparsers
    assert commands is not None
    parser = commands._group_actions[0].choices[command]  # type: ignore[index]
    assert parser.description
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["what"], ["run"], ["run", "hits", "--seed", "x"], ["run", "hits", "--backend", "moon"], ["list", "extra"], ["verify", "--repeat", "0"]],
)
def test_a_wrong_command_line_is_an_error(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 3, "2 would read INCONCLUSIVE"
    text = capsys.readouterr().err
    assert text.startswith("usage: labs")
    assert "\nERROR  " in text
    assert "\n\nhint: `labs" in text


def test_an_empty_setting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a workflow sets it from an input that nobody gave."""
    monkeypatch.setenv("LABS_BACKEND", "")
    assert build_parser().parse_args(["run", "hits"]).backend == "auto"


@pytest.mark.parametrize(
    ("ours", "for_locust"), [([], []), ([], ["--users", "5"]), (["--web-port", "9"], ["--users", "5"]), (["--web-port", "9"], [])]
)
def test_what_follows_two_dashes_is_for_locust(monkeypatch: pytest.MonkeyPatch, ours: list[str], for_locust: list[str]) -> None:
    given: list[object] = []

    def serve(order: "Order", *, web_port: int, options: list[str]) -> int:
        given.extend([order.name, web_port, options])
        return 0

    monkeypatch.setattr("runner.loadtest.serve", serve)
    assert main(["--debug", "load", "hits", *ours, "--", *for_locust]) == 0
    assert given == ["hits", 9 if ours else 8089, for_locust]


def test_a_bug_of_the_kit_is_an_error_and_no_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("runner.listing.list_labs", fail)
    assert main(["list"]) == 3
    text = capsys.readouterr().err
    assert text == "ERROR  the kit itself failed: ZeroDivisionError: a bug\n\nhint: --debug, before the command, shows where\n"
    assert main(["--debug", "list"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_debug_shows_the_traceback_of_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "no-such-lab"]) == 3
    assert "Traceback" not in capsys.readouterr().err
    assert main(["--debug", "run", "no-such-lab"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_the_whole_command_without_a_lab_at_hand(kit: "Kit") -> None:
    """Each on the fixture labs, from a folder inside the root: the root is found by LABS_ROOT, and else from the package."""
    listed = kit.labs("list")
    assert listed.returncode == 0
    assert re.search(r"^  hits +1/5 +5 min  - +new$", listed.stdout, re.MULTILINE)
    data = json.loads(kit.labs("list", "--json").stdout)
    assert {lab["name"] for lab in data["labs"]} == {"hits", "unsure", "bench"}
    hint = kit.labs("hint", "hits")
    assert hint.returncode == 0
    assert hint.stdout.startswith("Hint 1 of 3 for hits\n\nCount.\n")
    assert kit.labs("hint", "unsure").returncode == 3
    made = kit.labs("new", "middleware/brand-new")
    assert made.returncode == 0
    assert (kit.lab("brand-new") / "lab.toml").exists()
    again = kit.labs("new", "middleware/brand-new")
    assert again.returncode == 3
    assert "exists already; nothing was written" in again.stderr


def test_a_tour_compares_starter_and_solution(kit: "Kit") -> None:
    done = kit.labs("tour", "hits")
    assert done.returncode == 0, done
    assert done.stdout.index("FAIL  hits   starter") < done.stdout.index("PASS  hits   solution") < done.stdout.index("3. Side by side")
    assert re.search(r"^every hit is counted +FAIL +PASS\n  hits counted \(at least 20\) +10 +20$", done.stdout, re.MULTILINE)
    assert "why the starter failed: the count is read, and written later." in done.stdout
    assert "next: `make lab NAME=hits` gives you the starter as my/hits/, yours to mend" in done.stdout
    assert not (kit.root / "my").exists()


def test_a_tour_that_goes_otherwise_says_so(kit: "Kit") -> None:
    done = kit.labs("tour", "unsure")
    assert done.returncode == 3
    assert done.stdout.startswith("A tour of unsure: Unsure, with no server and 1 replica of the app on this machine.\n")
    assert done.stdout.endswith(
        "The starter should have come to FAIL and the solution to PASS, not to FAIL and INCONCLUSIVE.\n"
        "next: close what is busy on this machine, and run again\n"
    )


def test_a_tour_that_is_interrupted_ends_when_its_run_has(kit: "Kit") -> None:
    slow = """try:
        import time

        lab.mark("the visitors have gone")
        time.sleep(60)  # until it is interrupted
    finally:
        time.sleep(1)  # a run that takes its time to end, which must be waited for
        print("all is tidy", flush=True)
    return load"""
    kit.edit("microservices/hits/test_lab.py", "return load", slow)
    process = kit.start("tour", "hits")
    assert process.stdout is not None
    assert any("the visitors have gone" in line for line in process.stdout)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 3, rest
    assert "all is tidy\n" in rest
    assert rest.endswith("\ninterrupted; everything it started has ended\n")


@pytest.mark.parametrize("words", [1, 100_000])
def test_output_that_nobody_reads_is_no_crash(kit: "Kit", words: int) -> None:
    """Met when it is printed, or when it is flushed at last."""
    child = f"import sys, runner.cli, runner.listing as l; l.list_labs = lambda *_, **__: 'word ' * {words}; sys.exit(runner.cli.main(['list']))"
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE, stderr=subprocess.PIPE)"
    done = kit.python("-c", f"{code}; p.stdout.close(); print(p.wait(), p.stderr.read())")
    assert done.stdout == "3 b''\n", done
