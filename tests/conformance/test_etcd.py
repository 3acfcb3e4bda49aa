"""Histories of etcd that Jepsen recorded, with the published answers: one register with compare-and-set, a line an event."""

import re
import statistics
import time
from pathlib import Path

from runner.checkers.diagram import draw_violation
from runner.checkers.linear import check_linearizable
from runner.checkers.models import cas_register
from runner.checkers.operations import Operation

EVENT = re.compile(r"^INFO  jepsen\.util - (\d+)\s+:(invoke|ok|fail|info)\s+:(read|write|cas)\s+(\S.*?)\s*$")
MODEL = cas_register()
# CPU seconds, so that a busy machine changes little. Seen: 0.008 for the longest history, 0.0006 for the median.
ONE_WITHIN_S, MEDIAN_WITHIN_S, ALL_WITHIN_S = 0.2, 0.003, 1.0


def read_history(path: Path) -> list[Operation]:
    """The operations of a log; the place of a line is its time. A failed read did nothing, a failed `cas` found another value."""
    running: dict[str, tuple[str, object, int]] = {}
    operations = []
    for at_ns, line in enumerate(path.read_text().splitlines()):
        event = EVENT.match(line)
        assert event, f"{path.name}, line {at_ns + 1} is no event: {line}"
        process, what, kind, value = event.groups()
        if what == "invoke":
            running[process] = kind, read_value(value), at_ns
            continue
        kind, argument, call_ns = running.pop(process)
        if what == "ok":
            result = True if kind == "cas" else read_value(value) if kind == "read" else None
            operations.append(Operation(process, kind, argument, result, call_ns, at_ns))
        elif what == "info":
            operations.append(Operation(process, kind, argument, None, call_ns, None))
        elif kind == "cas":
            operations.append(Operation(process, kind, argument, False, call_ns, at_ns))
        else:
            assert kind == "read", f"{path.name}, line {at_ns + 1}: a {kind} that failed may have happened or not"
    return operations + [Operation(process, kind, argument, None, call_ns, None) for process, (kind, argument, call_ns) in running.items()]


def read_value(text: str) -> object:
    """`nil`, a number, or a pair of numbers."""
    if text == "nil":
        return None
    return tuple(map(int, text[1:-1].split())) if text.startswith("[") else int(text)


def cpu_s(operations: list[Operation]) -> float:
    """The CPU time of one judgement: the least of three, as the first one warms up."""
    times = []
    for _ in range(3):
        before = time.process_time()
        check_linearizable(operations, MODEL)
        times.append(time.process_time() - before)
    return min(times)


def test_the_published_answer_is_found(vector: tuple[Path, str]) -> None:
    path, expected = vector
    operations = read_history(path)
    found = check_linearizable(operations, MODEL)
    assert found.verdict == expected
    assert cpu_s(operations) < ONE_WITHIN_S
    for violation in found.violations:
        drawn = draw_violation(violation)
        assert "<-- no order explains this" in drawn
        assert len(drawn.splitlines()) < 40, drawn


def test_all_of_them_take_less_than_a_second(vectors: list[tuple[Path, str]]) -> None:
    times = [cpu_s(read_history(path)) for path, _ in vectors]
    print(f"{len(times)} histories: median {statistics.median(times) * 1e3:.2f} ms, longest {max(times) * 1e3:.1f} ms, all {sum(times):.3f} s")
    assert statistics.median(times) < MEDIAN_WITHIN_S
    assert sum(times) < ALL_WITHIN_S
