"""The pytest plugin: the `lab` fixture, which owns a run from its first process to its end, and the verdict over its checks."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runner.backend import BACKENDS, Choice, choose_backend
from runner.errors import AppError, Inconclusive, LabError, LabsError, MachineError
from runner.generator import HeadStart
from runner.lab import Lab, Submission, read_lab, resolve_submission
from runner.page import write_page
from runner.report import INDENT, Report, claim_run_folder, new_run_folder, print_verdict, write_report
from runner.run import Run, new_seed
from runner.services import find_complaint
from runner.verdict import CheckResult, Outcome, decide_verdict, read_promise, read_seen, worst_of

STARTED = time.monotonic()
MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
MACHINE_HINT = "is the disk full, are too many files open, or is the Docker engine gone? `make doctor` looks at this machine"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `labs run`, for plain pytest."""
    group = parser.getgroup("labs", "backend-labs")
    group.addoption("--submission", default=None, help="what to judge: starter, solution, wrong/<bug>, mine or a path (default: mine)")
    group.addoption("--seed", type=int, default=None, help="repeat a run's random choices")
    default = os.environ.get("LABS_BACKEND") or "auto"
    group.addoption("--backend", choices=BACKENDS, default=default, help="where it runs: auto (docker when it is prepared), docker or embedded")
    group.addoption("--keep", action="store_true", help="leave everything up after the checks until Ctrl-C")
    group.addoption("--await-go", action="store_true", help="start all but the app, then wait for a line on the standard input")
    group.addoption("--debug-app", type=int, default=None, metavar="PORT", help="the app under debugpy, on this port and the next ones")
    group.addoption("--narrate", action="store_true", help="print what happens while it happens")
    group.addoption("--run-folder", type=Path, default=None, help="where to write the report and logs (default: .labs/runs/<time>-<lab>)")


class Hooks:
    """What another plugin may want to know of a run."""

    def pytest_labs_app_starts(self, run: Run) -> None:
        """The app is about to start, with the files that the submission has now."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Make our hook known."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_configure(config: pytest.Config) -> None:
    """Register the judge of this session."""
    config.pluginmanager.register(Judge(config), "labs-judge")


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Run]:
    """The running lab: its servers, peers and the submission's replicas are up."""
    config = request.config
    judge: Judge = config.pluginmanager.getplugin("labs-judge")
    folder = request.path.parent
    if not (folder / "lab.toml").exists():
        raise LabError(f"{folder} has no lab.toml", hint="the `lab` fixture serves the test_lab.py of a lab")
    described = read_lab(folder)
    submission = resolve_submission(described, config.getoption("--submission"))
    seed = config.getoption("--seed")
    seed = new_seed() if seed is None else seed
    backend = choose_backend(config.getoption("--backend"), described.services, described.programs)
    run = make_run(described, submission, judge.run_folder(described.name), seed, backend, judge.ahead, config.getoption("--debug-app"))
    run.is_narrated = config.getoption("--narrate")
    judge.runs[request.node.nodeid] = run
    try:
        run.warm_up()
        if config.getoption("--await-go"):
            run.app.start_ahead()
            await_go()
            run.created_ns = time.monotonic_ns()  # it was warm before: what is told counts from the go
        config.hook.pytest_labs_app_starts(run=run)
        run.start_app()
        yield run
        judge.conclude(request.node.nodeid)  # here, since what follows takes a while
        if not judge.is_interrupted:  # after Ctrl-C pytest ends fixtures, too
            run.save_ledgers()
            if config.getoption("--keep"):
                judge.hold(run)
    finally:
        run.stop()


def make_run(lab: Lab, submission: Submission, folder: Path, seed: int, backend: Choice, ahead: HeadStart | None, debug_port: int | None) -> Run:
    """A run, or one under the debugger."""
    if debug_port is None:
        return Run(lab, submission, folder, seed, backend, ahead)
    from runner.debug import DebugRun

    return DebugRun(lab, submission, folder, seed, debug_port, ahead)


class Judge:
    """Collects what each lab's checks came to, and turns it into verdicts, reports and the exit code."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.runs: dict[str, Run] = {}  # test module -> its run
        self.results: dict[str, list[CheckResult]] = {}
        self.reports: dict[str, Report] = {}
        self.unwritten: dict[str, MachineError] = {}
        self.is_interrupted = False
        self.ahead = next((plugin for plugin in config.pluginmanager.get_plugins() if isinstance(plugin, HeadStart)), None)

    def run_folder(self, name: str) -> Path:
        """The folder asked for, or a new one."""
        chosen: Path | None = self.config.getoption("--run-folder")
        return claim_run_folder(chosen) if chosen else new_run_folder(name)  # absolute: the guard, which opens the logs, works elsewhere

    def hold(self, run: Run) -> None:
        """Leave everything up until Ctrl-C."""
        capture = self.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            print(f"\nkept up until Ctrl-C:\n{run.addresses()}", flush=True)
            try:
                while True:
                    time.sleep(3600)  # until the person has seen enough
            except KeyboardInterrupt:
                print("stopping", flush=True)

    def conclude(self, nodeid: str) -> None:
        """Decide, write report.json and, where a person follows, say it."""
        if self.is_interrupted or nodeid in self.reports or nodeid not in self.results:
            return
        run = self.runs[nodeid]
        began_s = run.created_ns / 1e9 if self.config.getoption("--await-go") else STARTED
        self.reports[nodeid] = report = Report.of(run, decide_verdict(self.results[nodeid]), seconds=time.monotonic() - began_s)
        try:
            write_report(report)
        except MachineError as error:  # the verdict stands, and is told
            self.unwritten[nodeid] = error
        if run.is_narrated:
            print()
            self.tell(nodeid, print)
            sys.stdout.flush()

    def tell(self, nodeid: str, write: Callable[[str], object]) -> None:
        """The verdict, and why there is no report.json of it."""
        print_verdict(self.reports[nodeid], write)
        if nodeid in self.unwritten:
            write(f"  ! {self.unwritten[nodeid]}\n\n{INDENT}hint: {self.unwritten[nodeid].hint}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Note what a check came to, by the type of what it raised."""
        report = yield
        module = item.getparent(pytest.Module)
        if module is None or not isinstance(item, pytest.Function) or not asks_for_the_lab(item):
            return report
        is_new = call.when == "call" or call.excinfo is not None
        if is_new and call.when != "teardown":
            run = self.runs.get(module.nodeid)
            comparisons = tuple(run.comparisons) if run else ()
            doubt = run.doubts[0].what if run and run.doubts else ""
            if run:
                run.comparisons.clear()
                run.doubts.clear()
            error = call.excinfo.value if call.excinfo else None
            result = judge_check(item, error, is_setup=call.when == "setup", seconds=call.duration, doubt=doubt)
            self.results.setdefault(module.nodeid, []).append(replace(result, comparisons=comparisons))
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Ctrl-C is no verdict."""
        self.is_interrupted = True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the pages, and say it all by the exit code."""
        if self.is_interrupted:
            session.exitstatus = int(Outcome.ERROR)
            return
        outcomes = []
        for nodeid in self.results:
            if nodeid not in self.runs:
                outcomes.append(Outcome.ERROR)
                continue
            self.conclude(nodeid)  # of a run whose app or servers did not start
            with contextlib.suppress(LabsError, OSError):  # the page is made of what is there already, and can be made again
                write_page(self.reports[nodeid].folder, self.runs[nodeid].lab.title)
            outcomes.append(self.reports[nodeid].verdict.outcome)
        if outcomes and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            is_other_failed = session.testsfailed > sum(len([c for c in r.verdict.checks if c.outcome]) for r in self.reports.values())
            session.exitstatus = int(worst_of(outcomes) or (Outcome.FAIL if is_other_failed else Outcome.PASS))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Under plain pytest, the verdicts follow pytest's own words."""
        for nodeid, report in self.reports.items():
            terminalreporter.section(f"verdict of {report.lab}")
            self.tell(nodeid, terminalreporter.write_line)


def await_go() -> None:
    """Return when a line comes in; whoever closes the input instead wants no verdict."""
    if not sys.stdin.readline():
        raise KeyboardInterrupt


def asks_for_the_lab(item: pytest.Function) -> bool:
    """Whether a test uses the `lab` fixture; a parameter of that name in a test of something else does not count."""
    return "lab" in item.fixturenames and "lab" not in (item.callspec.params if hasattr(item, "callspec") else {})


def judge_check(item: pytest.Function, error: BaseException | None, *, is_setup: bool, seconds: float, doubt: str = "") -> CheckResult:
    """What a check came to: an assertion in it is a failed promise, the kit's own errors say whom to blame, all else is a broken lab or machine.

    With a `doubt` (the machine was slow) a failed promise is INCONCLUSIVE.
    """
    promised, why = read_promise(item.function.__doc__)
    result = CheckResult(name=item.name, outcome=Outcome.PASS, promised=promised, why=why, seconds=seconds)
    if error is None:
        return result
    error = find_complaint(error) or error
    seen = str(error).encode("utf-8", "backslashreplace").decode()  # half a surrogate, of bytes that are no text, could not be printed
    if isinstance(error, AssertionError | pytest.fail.Exception) and not is_setup:
        if doubt:
            return replace(result, outcome=Outcome.INCONCLUSIVE, seen=f"{doubt}, so this may be no fault of the app: {read_seen(seen)}")
        return replace(result, outcome=Outcome.FAIL, seen=read_seen(seen))
    if not isinstance(error, LabsError):
        blame, hint = ("machine", MACHINE_HINT) if is_of_machine(error) else ("lab", "the lab's own code failed: run it with pytest to see where")
        return replace(result, outcome=Outcome.ERROR, blame=blame, seen=f"{type(error).__name__}: {seen}", hint=hint)
    result = replace(result, seen=seen, hint=error.hint)
    if isinstance(error, Inconclusive):
        return replace(result, outcome=Outcome.INCONCLUSIVE)
    if isinstance(error, AppError):
        return replace(result, outcome=Outcome.FAIL, blame="app")
    return replace(result, outcome=Outcome.ERROR, blame="lab" if isinstance(error, LabError) else "machine")


def is_of_machine(error: BaseException) -> bool:
    """Whether it tells of a machine that has no more to give, or of its Docker engine."""
    is_exhausted = isinstance(error, OSError) and error.errno in MACHINE_ERRORS
    return is_exhausted or type(error).__module__.partition(".")[0] in ("docker", "requests")
