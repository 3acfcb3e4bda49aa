"""The shim that shifts the wall clock of a running Python."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.children import clean_environment
from runner.shims.shift import FIFO, shift
from runner.skew import SHIMS, WITHIN_S, skew_env

SKEW_ENV = skew_env(str(SHIMS))

# Answers each line with what its clocks say; `import` is late on purpose: it must see a shifted clock too.
CLOCKS = """
import sys, time
for _ in sys.stdin:
    import datetime, json, uuid
    wall = [time.time(), time.time_ns() / 1e9, datetime.datetime.now().timestamp(), datetime.datetime.now(datetime.timezone.utc).timestamp()]
    print(json.dumps({"wall": wall, "monotonic": time.monotonic(), "perf": time.perf_counter()}), flush=True)
"""
Clocks = dict[str, list[float] | float]
# What a wall clock may differ from ours between two looks at it.
NEAR_S = 5.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def ask(home: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """Ask a skewable Python for its clocks, less ours: {wall, monotonic, perf} in seconds; all its wall clocks agree."""
    env = {**clean_environment(home), **SKEW_ENV}
    with subprocess.Popen([sys.executable, "-c", CLOCKS], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def look() -> dict[str, float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("?\n")
            process.stdin.flush()
            seen = json.loads(process.stdout.readline())
            wall = seen["wall"]
            assert max(wall) - min(wall) < NEAR_S
            return {
                "wall": wall[0] - time.time(),
                "monotonic": seen["monotonic"] - time.monotonic(),
                "perf": seen["perf"] - time.perf_counter(),
            }

        yield look
        process.kill()


Ask = Callable[[], dict[str, float]]


def shift_clock(home: Path, offset_s: float) -> bool:
    return shift(str(home), offset_s, WITHIN_S)


def is_near(seen: float, expected: float) -> bool:
    return abs(seen - expected) < NEAR_S


def test_without_a_shift_the_clock_is_right(ask: Ask) -> None:
    assert is_near(ask()["wall"], 0)


@pytest.mark.parametrize("offset_s", [3600.0, -3600.0, 90 * 86400.0])
def test_a_shift_is_in_force_when_it_returns(ask: Ask, home: Path, offset_s: float) -> None:
    assert is_near(ask()["wall"], 0)
    assert shift_clock(home, offset_s) is True
    assert is_near(ask()["wall"], offset_s)


def test_the_monotonic_clocks_are_left_alone_but_have_a_zero_of_their_own(ask: Ask, home: Path) -> None:
    before = ask()
    shift_clock(home, 3600)
    after = ask()
    for clock in ("monotonic", "perf"):
        assert is_near(after[clock], before[clock])
        assert before[clock] > 0.5


def test_each_shift_is_from_the_true_time_and_zero_ends_it(ask: Ask, home: Path) -> None:
    for offset_s in (600.0, 600.0, -600.0, 0.0, 1200.0):
        assert shift_clock(home, offset_s)
        assert is_near(ask()["wall"], offset_s)


def test_a_shifted_clock_goes_on(ask: Ask, home: Path) -> None:
    """It keeps its distance to ours. What passes between its look and ours makes that seem less, never more: the most of several is the nearest."""
    shift_clock(home, 600)
    first = last = max(ask()["wall"] for _ in range(5))
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        last = max(ask()["wall"] for _ in range(5))
    assert abs(last - first) < 0.25


def test_what_is_no_python_cannot_be_shifted(home: Path) -> None:
    with subprocess.Popen(["/bin/sh", "-c", "read _"], env={**clean_environment(home), **SKEW_ENV}, stdin=subprocess.PIPE) as process:
        assert shift(str(home), 60, 0.2) is False
        process.kill()


def test_a_restart_begins_with_the_true_time_and_can_be_shifted(home: Path) -> None:
    env = {**clean_environment(home), **SKEW_ENV}
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", CLOCKS], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for offset_s in (0.0, 7200.0):
                if offset_s:
                    assert shift_clock(home, offset_s)
                process.stdin.write("?\n")
                process.stdin.flush()
                assert is_near(json.loads(process.stdout.readline())["wall"][0] - time.time(), offset_s)
            process.kill()


def test_the_app_does_not_see_how(home: Path) -> None:
    env = {**clean_environment(home), **SKEW_ENV}
    code = "import os; print(sorted(key for key in os.environ if 'SKEW' in key))"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert (home / FIFO).is_fifo()


def test_without_the_kit_the_shim_does_nothing(home: Path) -> None:
    env = {**clean_environment(home), "PYTHONPATH": SKEW_ENV["PYTHONPATH"]}
    done = subprocess.run(
        [sys.executable, "-c", "import threading; print(threading.active_count())"], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    assert list(home.iterdir()) == []
