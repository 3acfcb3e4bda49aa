"""`labs run`: pytest with the plugin in this process, its verdict on the terminal, and what to do next."""

import filecmp
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.attempt import text_files
from runner.backend import choose_backend
from runner.checkout import find_root, shown_path
from runner.errors import LabError
from runner.generator import HeadStart
from runner.guidance import likely_bugs
from runner.lab import Lab, Submission, copy_starter, find_lab, resolve_submission
from runner.progress import record_state
from runner.report import Report, claim_run_folder, new_run_folder
from runner.verdict import Outcome

if TYPE_CHECKING:
    from runner.run import Run


@dataclass(frozen=True)
class Order:
    """What `labs run` was asked for."""

    name: str
    submission: str | None = None
    seed: int | None = None
    run_folder: Path | None = None
    is_kept: bool = False
    is_brief: bool = False
    is_demonstration: bool = False
    backend: str = "auto"
    awaits_go: bool = False
    debug_port: int | None = None


class Listener:
    """Takes from pytest what it would have printed: the reports, or why there are none."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.problems: list[str] = []
        self.is_untouched = False
        self.is_interrupted = False

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A test_lab.py that cannot be imported."""
        if report.failed:
            self.problems.append(report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A run that could not even be made."""
        if report.when == "setup" and report.failed:
            self.problems.append(report.longreprtext)

    def pytest_labs_app_starts(self, run: "Run") -> None:
        """Whether it is the starter that is judged: the learner may go on editing meanwhile."""
        self.is_untouched = run.submission.kind == "mine" and is_same_tree(run.submission.path, run.lab.folder / "starter")

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Ctrl-C; by the same way pytest itself ends a session that it cannot collect."""
        self.is_interrupted = not isinstance(excinfo.value, pytest.Session.Interrupted)

    def pytest_internalerror(self, excrepr: object) -> None:
        """A bug of the kit."""
        self.problems.append(str(excrepr))

    @pytest.hookimpl(wrapper=True)
    def pytest_unconfigure(self, config: pytest.Config) -> Iterator[None]:
        """The reports, as the session ends."""
        judge = config.pluginmanager.getplugin("labs-judge")
        self.reports = list(judge.reports.values()) if judge else []
        return (yield)


def judge_submission(order: Order, ahead: HeadStart | None = None) -> int:
    """Run and print; the exit code is the verdict's."""
    lab = find_lab(order.name)
    is_first = order.submission in (None, "mine") and copy_starter(lab)
    submission = resolve_submission(lab, order.submission)
    if order.debug_port is not None:
        order = prepare_debugging(order, lab, submission)
    backend = choose_backend(order.backend, lab.services, lab.programs)  # here, where an error of it is no broken lab
    backend.close()
    print(
        f"{lab.name}: {lab.title}. Judging {shown_path(submission.path)} with {', '.join(lab.services) or 'no server'}.",
        flush=True,
    )
    if is_first:
        print(f"{shown_path(submission.path)}/ is new: a copy of the starter, yours to edit. The incident is in {shown_path(lab.folder)}/README.md.")
    print(f"backend: {backend}", flush=True)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]  # in PYTEST_ADDOPTS a -x would leave out checks
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # other packages' plugins would cost a learner 0.1 s a run
    listener = Listener()
    pytest.main(pytest_arguments(lab, submission, replace(order, backend=backend.name)), plugins=[listener, ahead] if ahead else [listener])
    if not listener.reports:
        if listener.is_interrupted:
            raise KeyboardInterrupt
        problems = "\n".join(listener.problems)[-3000:] or "it has no check: no function is called test_..."
        raise LabError(f"{shown_path(lab.folder)}/test_lab.py could not be run\n{problems}")
    report = listener.reports[0]
    if order.debug_port is not None:
        print("This was a run under the debugger: one replica, no fault on it, limits that wait. What it came to is no verdict.")
        return int(report.verdict.outcome)
    if submission.kind == "mine" and not listener.is_untouched and report.verdict.outcome in (Outcome.PASS, Outcome.FAIL):
        record_state(lab.name, "passed" if report.verdict.outcome is Outcome.PASS else "failed")
    if not order.is_brief:
        print_next(lab, submission, report, is_untouched=listener.is_untouched)
    if order.is_demonstration and listener.is_untouched and report.verdict.outcome is Outcome.FAIL:
        return 0
    return int(report.verdict.outcome)


def prepare_debugging(order: Order, lab: Lab, submission: Submission) -> Order:
    """The order, embedded. Raises LabError when it must be Docker, or when this lab's app cannot be debugged."""
    from runner.debug import place_debuggers

    if order.backend == "docker":
        raise LabError("--debug-app runs embedded alone: in a container no debugger reaches the app", "say --backend embedded")
    assert order.debug_port is not None
    place_debuggers(lab, submission, order.debug_port)
    return replace(order, backend="embedded")


def pytest_arguments(lab: Lab, submission: Submission, order: Order) -> list[str]:
    """The command line that plain pytest would take for the same run, without its terminal output."""
    folder = claim_run_folder(order.run_folder) if order.run_folder else new_run_folder(lab.name)
    arguments = [
        str(lab.folder / "test_lab.py"),
        f"--submission={submission.path if submission.kind == 'path' else submission.name}",
        f"--run-folder={folder}",
        f"--backend={order.backend}",
        "--narrate",
    ]
    arguments += [
        f"--junitxml={folder / 'junit.xml'}",
        "--import-mode=importlib",
        f"--rootdir={find_root()}",
        "-c",
        str(find_root() / "pyproject.toml"),
    ]
    arguments += ["-o", "addopts=", "-o", "filterwarnings=", "-s", "-p", "no:terminal", "-p", "no:cacheprovider", "-p", "labs"]
    arguments += [f"--debug-app={order.debug_port}"] * (order.debug_port is not None)
    arguments += [f"--seed={order.seed}"] * (order.seed is not None) + ["--keep"] * order.is_kept + ["--await-go"] * order.awaits_go
    return arguments


def is_same_tree(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files, those left out that are nobody's work."""
    names = text_files(one)
    return names == text_files(other) and all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


def print_next(lab: Lab, submission: Submission, report: Report, *, is_untouched: bool) -> None:
    """What to do now; only commands that exist."""
    mine = shown_path(find_root() / "my" / lab.name)
    outcome = report.verdict.outcome
    if outcome is Outcome.PASS:
        debrief = f"make debrief NAME={lab.name}" if submission.kind == "mine" else f"read {shown_path(lab.folder)}/debrief.md"
        print(f"next: {debrief}: why it works, and what it costs; then `make next`")
    elif outcome is Outcome.INCONCLUSIVE:
        print("next: this machine or this run did not let the kit judge; close what is busy and run again")
    elif outcome is Outcome.FAIL and submission.kind in ("starter", "mine"):
        if is_untouched:
            print(f"This is the incident: the starter works in a demo and fails here. Edit {mine}/ and run again.")
        elif bugs := likely_bugs(lab, report.verdict.failed):
            print("Others who failed just these checks had a version that " + ", or one that ".join(bugs) + ".")
        print(f"next: make hint NAME={lab.name}")
