"""A load: how it ends, what it waits for, and whose fault it is when it fails."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from runner.errors import AppError, LabError, MachineError
from runner.generator import LoadProcess
from runner.load import Load

if TYPE_CHECKING:
    from conftest import Clockwork, Loads

THREE_EACH = """
    from locust import FastHttpUser, task
    from locust.exception import StopUser

    class Visitor(FastHttpUser):
        @task
        def visit(self):
            for i in range(3):
                self.client.get(f"/{i}")
            raise StopUser
"""
FOR_EVER = """
    from locust import FastHttpUser, constant, task

    class Visitor(FastHttpUser):
        wait_time = constant(0.01)

        @task
        def visit(self):
            self.client.get("/again")
"""


def assert_complete(load: Load, clockwork: "Clockwork", at_least: int) -> None:
    """Every request that the server saw is in the history, and every answer came from it.

    A user that wakes up as it is ended may just have sent one: that is `unknown`, and the server may have seen it or not.
    """
    outcomes = load.history.outcomes()
    assert at_least <= outcomes["ok"] <= len(clockwork.visits) <= outcomes["ok"] + outcomes["unknown"]
    assert outcomes["unknown"] <= len({record.user for record in load.history})
    assert outcomes["fail"] == 0


@pytest.fixture
def clockwork(serve: "Callable[[], Clockwork]") -> "Clockwork":
    return serve()


def test_fixed_work_ends_by_itself(clockwork: "Clockwork", loads: "Loads") -> None:
    with loads(THREE_EACH, [clockwork.url], users=5) as load:
        assert load.elapsed_s >= 0
    assert load.is_over
    assert not load.is_cut_short
    assert load.missed == ""
    assert len(load.history) == len(clockwork.visits) == 15
    assert sorted({record.user for record in load.history}) == [1, 2, 3, 4, 5]
    assert load.history.duration_s <= load.seconds


def test_until_ends_it_when_the_state_is_seen(clockwork: "Clockwork", loads: "Loads") -> None:
    with loads(FOR_EVER, [clockwork.url], users=2, until=lambda: len(clockwork.visits) >= 30) as load:
        assert not load.is_over
    assert load.is_over
    assert not load.is_cut_short
    assert_complete(load, clockwork, at_least=30)


def test_an_endless_one_ends_with_its_block(clockwork: "Clockwork", loads: "Loads") -> None:
    with loads(FOR_EVER, [clockwork.url], is_endless=True) as load:
        seen = load.until(lambda: len(clockwork.visits) >= 10 and "ten", "ten visits")
        assert seen == "ten", "the state itself is given back"
    assert_complete(load, clockwork, at_least=10)
    assert not load.is_cut_short


def test_what_has_been_answered_is_known_while_it_runs(clockwork: "Clockwork", loads: "Loads") -> None:
    with loads(FOR_EVER, [clockwork.url], is_endless=True) as load:
        first = load.until(lambda: load.so_far()[4:], "five answers")[0]
        later = load.until(lambda: load.so_far(first.start_ns), "an answer to a later request")
        assert all(record.start_ns > first.start_ns for record in later)
    assert set(later) <= set(load.history.records)


def test_at_most_s_cuts_it_short(clockwork: "Clockwork", loads: "Loads") -> None:
    with loads(FOR_EVER, [clockwork.url], at_most_s=1.0) as load:
        pass
    assert load.is_cut_short
    assert load.is_over
    assert load.seconds >= 1.0
    assert_complete(load, clockwork, at_least=1)


def test_a_state_that_does_not_come_leaves_out_the_rest_of_the_block(clockwork: "Clockwork", loads: "Loads") -> None:
    steps = []
    with loads(FOR_EVER, [clockwork.url], is_endless=True) as load:
        steps.append("before")
        load.until(lambda: False, "a state that never comes", at_most_s=0.3)
        steps.append("after")
    assert steps == ["before"]
    assert load.missed == "a state that never comes"
    assert_complete(load, clockwork, at_least=1)


def test_a_state_that_does_not_come_before_the_end_is_missed(clockwork: "Clockwork", loads: "Loads") -> None:
    with loads(THREE_EACH, [clockwork.url]) as load:
        load.until(lambda: False, "a fourth visit")
    assert load.missed == "a fourth visit"
    assert len(load.history) == 3


def test_a_state_that_does_not_come_in_time_is_missed(clockwork: "Clockwork", loads: "Loads") -> None:
    with loads(FOR_EVER, [clockwork.url], at_most_s=1.0) as load:
        load.until(lambda: False, "what takes too long")
    assert load.missed == "what takes too long"


def test_another_error_of_the_block_is_not_swallowed(clockwork: "Clockwork", loads: "Loads") -> None:
    load = loads(FOR_EVER, [clockwork.url], is_endless=True)

    def fail() -> None:
        with load:
            load.until(lambda: clockwork.visits, "a visit")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert load._worker.process.exit_code is not None, "its process has ended"


def test_the_plan_reaches_the_locustfile(clockwork: "Clockwork", loads: "Loads") -> None:
    locustfile = """
        from locust import FastHttpUser, task
        from locust.exception import StopUser
        from runner.pacing import read_plan

        plan = read_plan(keys=["default"], left="alone")

        class Visitor(FastHttpUser):
            @task
            def visit(self):
                for key in plan.keys:
                    self.client.get(f"/{key}/{plan.left}")
                raise StopUser
    """
    with loads(locustfile, [clockwork.url], plan={"keys": ["a", "b"]}) as load:
        pass
    assert [record.path for record in load.history] == ["/a/alone", "/b/alone"]


# Whose fault it is


def test_an_error_of_a_task_is_the_labs(clockwork: "Clockwork", loads: "Loads") -> None:
    locustfile = """
        from locust import FastHttpUser, task
        from locust.exception import StopUser

        class Visitor(FastHttpUser):
            @task
            def visit(self):
                try:
                    self.client.get("/x").jason()
                finally:
                    raise StopUser if self.environment.runner.user_count > 5 else KeyError("no such key")
    """
    with pytest.raises(LabError) as caught, loads(locustfile, [clockwork.url], until=lambda: len(clockwork.visits) > 2):
        pass
    first, *_, last = str(caught.value).rstrip().splitlines()
    assert first.startswith("the locustfile failed ")
    assert first.endswith(" times; the first:")
    assert last == "KeyError: 'no such key'"


@pytest.mark.parametrize(
    ("locustfile", "end"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("class Visitor(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit('as I like')", "SystemExit: as I like"),
        ("from locust import FastHttpUser", "ValueError: the locustfile has no user class"),
    ],
)
def test_a_broken_locustfile_is_the_labs_fault(loads: "Loads", locustfile: str, end: str) -> None:
    with pytest.raises(LabError, match=r"the locustfile failed 1 times; the first:\nTraceback") as caught, loads(locustfile, ["http://127.0.0.1:9"]):
        pass
    assert str(caught.value).rstrip().splitlines()[-1] == end


def test_a_load_generator_that_was_killed_is_the_machines_fault(clockwork: "Clockwork", loads: "Loads") -> None:
    load = loads(FOR_EVER, [clockwork.url], is_endless=True)

    def kill() -> None:
        with load:
            load.until(lambda: clockwork.visits, "a visit")
            os.kill(load._worker.process.pid, signal.SIGKILL)
            load.until(lambda: False, "nothing more")

    with pytest.raises(MachineError, match=r"the load generator ended early \(exit code -9\)"):
        kill()


def test_a_load_generator_that_does_not_end_is_told_as_that(
    clockwork: "Clockwork", loads: "Loads", eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as one that ended early, by the signal that the kit itself then sends."""
    monkeypatch.setattr("runner.load.DRAINED_WITHIN_S", 0.3)
    load = loads(FOR_EVER, [clockwork.url], is_endless=True)

    def stop() -> None:
        with load:
            load.until(lambda: clockwork.visits, "a visit")
            load._worker.process.signal(signal.SIGSTOP)
            eventually(lambda: psutil.Process(load._worker.process.pid).status() == psutil.STATUS_STOPPED, "it stands")

    with pytest.raises(MachineError, match=r"the load generator did not end within 0\.3 s\n") as caught:
        stop()
    assert caught.value.hint


def test_a_load_generator_that_does_not_start_is_the_machines_fault(loads: "Loads", monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("runner.generator.clean_environment", lambda home: {"PYTHONHOME": str(home)})
    worker = LoadProcess(loads.children, "load", tmp_path / "load.log")
    with pytest.raises(MachineError, match=r"the load generator did not start \(exit code 1\)\n(?s:.*)  log: "):
        worker.connect()


def test_the_app_is_watched_while_it_is_under_load(clockwork: "Clockwork", loads: "Loads") -> None:
    def check_app() -> None:
        if len(clockwork.visits) > 5:
            raise AppError("app-1 died while it served")

    for act in (lambda load: load.until(lambda: False, "anything"), lambda _: None):
        clockwork.visits.clear()
        load = loads(FOR_EVER, [clockwork.url], check_app=check_app)
        with pytest.raises(AppError, match="app-1 died while it served"), load:
            act(load)
        assert load._worker.process.exit_code is not None


def test_it_leaves_nothing_open(clockwork: "Clockwork", loads: "Loads") -> None:
    with loads(THREE_EACH, [clockwork.url]) as load:
        pass
    assert load._connection.fileno() == -1
    assert load._worker.listener.fileno() == -1
    assert not load._reader.is_alive()


# The canary


def test_a_load_that_stands_still_is_seen(clockwork: "Clockwork", loads: "Loads") -> None:
    locustfile = """
        from gevent import sleep
        from locust import FastHttpUser, task
        from locust.exception import StopUser

        class Visitor(FastHttpUser):
            @task
            def visit(self):
                self.client.get("/before")
                sleep(0.05)
                burn()
                sleep(0.05)
                raise StopUser

        def burn():
            import time
            end = time.perf_counter() + 0.3
            while time.perf_counter() < end:
                pass
    """
    with loads(locustfile, [clockwork.url]) as load:
        pass
    assert load.history.longest_stall_s >= 0.25


def test_a_paused_load_generator_is_seen(clockwork: "Clockwork", loads: "Loads", eventually: Callable[..., Any]) -> None:
    with loads(FOR_EVER, [clockwork.url], is_endless=True) as load:
        load.until(lambda: clockwork.visits, "a visit")
        load._worker.process.signal(signal.SIGSTOP)
        eventually(lambda: psutil.Process(load._worker.process.pid).status() == psutil.STATUS_STOPPED, "it stands")
        stopped_s = time.monotonic()
        load.until(lambda: time.monotonic() > stopped_s + 0.5, "half a second")
        load._worker.process.signal(signal.SIGCONT)
        seen = len(clockwork.visits)
        load.until(lambda: len(clockwork.visits) > seen + 5, "more visits")
    assert load.history.longest_stall_s >= 0.4
