"""The history: what is read back, what is torn, and what the questions answer."""

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import LabError, MachineError
from runner.growing import GrowingHistory
from runner.history import History, Outcome, Record, Stall

proven = settings(max_examples=100, deadline=None, derandomize=True)
MS = 1_000_000


def row(**changes: Any) -> dict[str, Any]:
    """A line as the recorder writes it."""
    return {
        "n": 17,
        "user": 3,
        "name": "GET /products/[id]",
        "method": "GET",
        "path": "/products/42",
        "replica": 2,
        "start_ns": 100 * MS,
        "end_ns": 140 * MS,
        "intended_ns": None,
        "status": 200,
        "failed": None,
        "context": {"key": "42"},
        "headers": {"retry-after": "1"},
        "body": {"id": "42", "price": 7},
        **changes,
    }


def record(n: int = 1, start_ms: int = 0, end_ms: int = 10, **changes: Any) -> Record:
    values = {"user": 1, "name": "GET /", "method": "GET", "path": "/", "replica": 1, "status": 200, **changes}
    return Record(n=n, start_ns=start_ms * MS, end_ns=end_ms * MS, **values)


def write(folder: Path, *rows: dict[str, Any], rest: str = "") -> Path:
    path = folder / "history.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + rest)
    return path


def test_a_line_is_read_back_as_it_was_recorded(tmp_path: Path) -> None:
    (read,) = History.read(write(tmp_path, row()))
    assert {f.name: getattr(read, f.name) for f in dataclasses.fields(read)} == row()
    assert read.latency_s == pytest.approx(0.04)


def test_records_are_sorted_by_their_start_and_other_lines_are_kept_apart(tmp_path: Path) -> None:
    lines = [row(n=1, start_ns=9), {"kind": "stall", "at_ns": 5, "stall_ns": 30 * MS}, {"kind": "something newer"}, row(n=2, start_ns=4)]
    history = History.read(write(tmp_path, *lines))
    assert [r.n for r in history] == [2, 1]
    assert history.stalls == (Stall(5, 30 * MS),)


def test_a_line_without_a_number_gets_that_of_its_place(tmp_path: Path) -> None:
    lines = [{k: v for k, v in row().items() if k != "n"}] * 2
    assert [r.n for r in History.read(write(tmp_path, *lines))] == [1, 2]


def test_a_last_line_torn_anywhere_is_left_out(tmp_path: Path) -> None:
    last = json.dumps(row(n=2, body={"text": "ü"}), ensure_ascii=False).encode()
    for length in range(1, len(last) + 1):
        path = write(tmp_path, row(n=1))
        with path.open("ab") as file:
            file.write(last[:length])
        assert [r.n for r in History.read(path)] == [1]


def test_an_empty_file_is_an_empty_history(tmp_path: Path) -> None:
    assert History.read(write(tmp_path)) == History()
    assert not History()


@pytest.mark.parametrize("line", ["{", "[]", '"text"', '{"user": 1}', "", '{"kind": "stall"}'])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, row(), rest=f"{line}\n{json.dumps(row())}\n")
    with pytest.raises(MachineError, match=r"history\.jsonl, line 2 is no record of a request"):
        History.read(path)


@pytest.mark.parametrize("line", ["{", "[]", '"text"', '{"user": 1}', ""])
def test_a_broken_line_is_named_while_the_history_grows_too(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, row(), rest=f"{line}\n")
    with pytest.raises(MachineError, match=r"history\.jsonl, line 2 is no record of a request"):
        list(GrowingHistory(path).new_records())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"no history at .*gone\.jsonl"):
        History.read(tmp_path / "gone.jsonl")


@pytest.mark.parametrize(
    ("status", "failed", "outcome"),
    [
        (200, None, "ok"),
        (409, None, "ok"),
        (200, "wrong price", "fail"),
        (404, "HTTPError", "fail"),
        (499, "x", "fail"),
        (500, None, "unknown"),
        (503, "HTTPError", "unknown"),
        (None, "timed out", "unknown"),
        (None, None, "unknown"),
    ],
)
def test_the_outcome_is_what_its_user_saw(status: int | None, failed: str | None, outcome: Outcome) -> None:
    assert record(status=status, failed=failed).outcome == outcome


@pytest.mark.parametrize(
    ("status", "failed", "effect"),
    [
        (200, None, "ok"),
        (202, None, "ok"),
        (200, "body cut off", "unknown"),
        (302, None, "unknown"),
        (409, None, "fail"),
        (429, "HTTPError", "fail"),
        (500, None, "unknown"),
        (None, "timed out", "unknown"),
    ],
)
def test_the_effect_is_certain_only_after_a_right_answer_or_a_refusal(status: int | None, failed: str | None, effect: Outcome) -> None:
    assert record(status=status, failed=failed).effect == effect


def test_a_record_cannot_be_changed(tmp_path: Path) -> None:
    (read,) = History.read(write(tmp_path, row()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.status = 500  # type: ignore[misc]
    with pytest.raises(TypeError):
        read.context["key"] = "43"  # type: ignore[index]
    assert len({read, read}) == 1


@pytest.fixture
def mixed() -> History:
    return History(
        (
            record(1, 0, 10, name="GET a", context={"key": "1", "hot": True}),
            record(2, 5, 30, name="GET a", context={"key": "2", "hot": False}, status=503),
            record(3, 20, 40, name="GET b", context={"key": "1"}, failed="wrong"),
            record(4, 50, 60, name="GET b", context={"key": None}),
        ),
        (Stall(25 * MS, 30 * MS),),
    )


def numbers(history: History) -> list[int]:
    return [r.n for r in history]


def test_where_takes_name_outcome_context_and_predicate(mixed: History) -> None:
    assert numbers(mixed.where(name="GET a")) == [1, 2]
    assert numbers(mixed.where(outcome="unknown")) == [2]
    assert numbers(mixed.where(key="1")) == [1, 3]
    assert numbers(mixed.where(key="1", hot=True)) == [1]
    assert numbers(mixed.where(lambda r: r.end_ns > 30 * MS)) == [3, 4]
    assert numbers(mixed.where(lambda r: r.n > 1, name="GET b", outcome="fail", key="1")) == [3]
    assert mixed.where(name="GET a").stalls == mixed.stalls


def test_a_context_key_that_is_missing_equals_nothing(mixed: History) -> None:
    assert numbers(mixed.where(key=None)) == [4]
    assert numbers(mixed.where(hot=None)) == []


def test_an_outcome_that_does_not_exist_is_refused(mixed: History) -> None:
    with pytest.raises(LabError, match="outcome='okay'"):
        mixed.where(outcome="okay")  # type: ignore[arg-type]


def test_by_groups_by_a_context_key_or_a_function(mixed: History) -> None:
    assert {key: numbers(group) for key, group in mixed.by("key").items()} == {"1": [1, 3], "2": [2], None: [4]}
    assert {key: numbers(group) for key, group in mixed.by("hot").items()} == {True: [1], False: [2]}
    assert {key: numbers(group) for key, group in mixed.by(lambda r: r.name).items()} == {"GET a": [1, 2], "GET b": [3, 4]}


def test_between_takes_what_lies_inside_and_touching_what_reaches_in(mixed: History) -> None:
    assert numbers(mixed.between(0, 30 * MS)) == [1, 2]
    assert numbers(mixed.touching(10 * MS, 20 * MS)) == [1, 2, 3]
    assert numbers(mixed.between(None, 40 * MS)) == [1, 2, 3]
    assert numbers(mixed.between(20 * MS, None)) == [3, 4]
    assert numbers(mixed.touching(41 * MS, 49 * MS)) == []


def test_a_window_keeps_the_stalls_that_touch_it(mixed: History) -> None:
    assert mixed.between(0, 24 * MS).longest_stall_s == 0
    assert mixed.between(60 * MS, 80 * MS).longest_stall_s == pytest.approx(0.03)


def test_shares_and_counts(mixed: History) -> None:
    assert mixed.outcomes() == {"ok": 2, "fail": 1, "unknown": 1}
    assert mixed.ok_share() == 0.5
    assert mixed.duration_s == pytest.approx(0.06)
    assert (len(mixed), bool(mixed), bool(History())) == (4, True, False)


def test_an_empty_history_is_no_success() -> None:
    empty = History()
    assert (empty.ok_share(), empty.duration_s, empty.longest_stall_s) == (0, 0, 0)
    assert empty.outcomes() == {"ok": 0, "fail": 0, "unknown": 0}
    with pytest.raises(LabError, match="without records"):
        empty.percentile(0.5)


def test_a_late_departure_is_seen_in_the_records() -> None:
    late = History((record(1, 90, 95, intended_ns=10 * MS), record(2, 5, 6, intended_ns=4 * MS), record(3, 5, 6)))
    assert late.latest_departure_s == pytest.approx(0.08)
    assert History((record(3, 5, 6),)).latest_departure_s == History().latest_departure_s == 0


@proven
@given(st.lists(st.integers(0, 500), min_size=1, max_size=30), st.integers(0, 100))
def test_a_percentile_is_the_smallest_latency_that_so_many_did_not_exceed(latencies: list[int], percent: int) -> None:
    history = History(tuple(record(n, 0, ms) for n, ms in enumerate(latencies)))
    found = history.percentile(percent / 100)
    enough = [ms for ms in latencies if 100 * sum(1 for other in latencies if other <= ms) >= percent * len(latencies)]
    assert found == pytest.approx(min(enough) / 1000)


def test_a_percentile_is_not_moved_by_rounding() -> None:
    assert History(tuple(record(n, 0, n) for n in range(1, 101))).percentile(0.07) == pytest.approx(0.007)


@pytest.mark.parametrize("q", [-0.1, 1.1, 95, math.nan])
def test_a_percentile_is_asked_for_as_a_share(q: float) -> None:
    with pytest.raises(LabError, match=r"share in 0\.\.1"):
        History((record(),)).percentile(q)


def test_twenty_thousand_records_are_cheap(tmp_path: Path) -> None:
    path = write(tmp_path, *(row(n=n, start_ns=n, context={"key": str(n % 600)}) for n in range(20_000)))
    start = time.process_time()
    history = History.read(path)
    assert len(history.by("key")) == 600
    assert len(history.where(name="GET /products/[id]", outcome="ok", key="42")) > 30
    assert history.percentile(0.99) > 0
    assert time.process_time() - start < 4  # seen: 0.35 s
