"""What a locustfile takes from the kit, in real loads."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.errors import LabError

if TYPE_CHECKING:
    from conftest import Clockwork, Loads

ARRIVALS = """
    from locust import FastHttpUser, task
    from locust.exception import StopUser
    from runner.pacing import read_plan, run_arrivals

    plan = read_plan(offsets=[])

    class Crowd(FastHttpUser):
        concurrency = 100

        def send(self, i, intended_ns):
            self.client.get(f"/{i}{plan.query}", context={"i": i, "intended_ns": intended_ns})

        @task
        def arrive(self):
            run_arrivals(plan.offsets, self.send)
            raise StopUser
"""


@pytest.fixture
def clockwork(serve: "Callable[[], Clockwork]") -> "Clockwork":
    return serve()


def test_arrivals_keep_their_times_and_wait_for_nobody(clockwork: "Clockwork", loads: "Loads") -> None:
    """Ten arrivals, 20 ms apart, of requests that take half a second: the first has no answer when the last one leaves."""
    offsets = [0.02 * i for i in range(10)]
    with loads(ARRIVALS, [clockwork.url], plan={"offsets": offsets, "query": "?head=0.5"}) as load:
        pass
    records = load.history.records
    assert [record.context["i"] for record in records] == list(range(10))
    intended = [record.intended_ns or 0 for record in records]
    gaps = [later - earlier for earlier, later in itertools.pairwise(intended)]
    assert all(abs(gap - 20_000_000) < 1_000 for gap in gaps), "an intended time is computed, not measured"
    assert all(record.start_ns >= planned for record, planned in zip(records, intended, strict=True)), "none leaves too early"
    assert records[-1].start_ns < records[0].end_ns, "they overlap"
    assert {record.outcome for record in records} == {"ok"}, "and the last answers were awaited"
    assert "intended_ns" not in records[0].context


def test_arrivals_stop_at_the_end_of_the_load_and_what_was_sent_is_awaited(clockwork: "Clockwork", loads: "Loads") -> None:
    offsets = [0.01 * i for i in range(10_000)]
    plan = {"offsets": offsets, "query": "?head=0.3"}
    with loads(ARRIVALS, [clockwork.url], plan=plan, until=lambda: len(clockwork.visits) >= 5) as load:
        pass
    assert 5 <= len(load.history) == len(clockwork.visits) < 500
    assert load.history.outcomes() == {"ok": len(load.history), "fail": 0, "unknown": 0}


def test_a_barrier_releases_its_users_together(clockwork: "Clockwork", loads: "Loads") -> None:
    locustfile = """
        from locust import FastHttpUser, task
        from locust.exception import StopUser
        from runner.pacing import Barrier

        barrier, numbers = Barrier(5), iter(range(5))

        class Buyer(FastHttpUser):
            @task
            def buy(self):
                n = next(numbers)
                self.client.get(f"/before/{n}?head={0.1 * n}", name="before")
                barrier.wait()
                self.client.get(f"/after/{n}", name="after")
                raise StopUser
    """
    with loads(locustfile, [clockwork.url], users=5) as load:
        pass
    before, after = load.history.where(name="before"), load.history.where(name="after")
    assert len(before) == len(after) == 5
    ready = [record.end_ns for record in before]
    assert max(ready) - min(ready) >= 0.3e9, "they came one after the other"
    assert min(record.start_ns for record in after) > max(ready), "nobody left before all had come"


def test_a_barrier_that_is_not_reached_is_the_locustfiles_fault(clockwork: "Clockwork", loads: "Loads") -> None:
    locustfile = """
        from locust import FastHttpUser, task
        from runner.pacing import Barrier

        barrier = Barrier(3)

        class Buyer(FastHttpUser):
            @task
            def buy(self):
                self.client.get("/came")
                barrier.wait(0.5)
    """
    with (
        pytest.raises(LabError, match=r"TimeoutError: 1 users did not reach the barrier within 0\.5 s"),
        loads(locustfile, [clockwork.url], users=2, until=lambda: len(clockwork.visits) >= 3),
    ):
        pass


def test_a_locustfile_runs_under_plain_locust(clockwork: "Clockwork", tmp_path: Path) -> None:
    """Its plan is then the one of its defaults."""
    (tmp_path / "locustfile.py").write_text("""
from locust import FastHttpUser, task
from locust.exception import StopUser
from runner.pacing import Barrier, read_plan, run_arrivals

plan = read_plan(seed=0, path="/by-default")
barrier = Barrier(2)

class Visitor(FastHttpUser):
    @task
    def visit(self):
        barrier.wait()
        run_arrivals([0, 0.01], lambda i, intended_ns: self.client.get(f"{plan.path}/{i}", context={"intended_ns": intended_ns}))
        self.environment.runner.quit()
        raise StopUser
""")
    argv = [sys.executable, "-m", "locust", "-f", "locustfile.py", "--headless", "-u2", "-r20", "-t2", "--host", clockwork.url, "--only-summary"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert {visit.path for visit in clockwork.visits} == {"/by-default/0", "/by-default/1"}
