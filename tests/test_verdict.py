"""From results to the verdict."""

import itertools

import pytest

from runner.verdict import CheckResult, Comparison, Outcome, decide_verdict, read_promise, read_seen

PASS, FAIL, INCONCLUSIVE, ERROR = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.ERROR


def results(*outcomes: Outcome) -> list[CheckResult]:
    return [CheckResult(f"test_{n}", outcome) for n, outcome in enumerate(outcomes)]


def test_the_exit_codes_are_the_outcomes() -> None:
    assert {outcome.name: int(outcome) for outcome in Outcome} == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2, "ERROR": 3}


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ((PASS,), PASS),
        ((PASS, PASS), PASS),
        ((PASS, FAIL), FAIL),
        ((PASS, INCONCLUSIVE), INCONCLUSIVE),
        ((FAIL, INCONCLUSIVE), FAIL),
        ((FAIL, ERROR), ERROR),
        ((INCONCLUSIVE, ERROR), ERROR),
        ((PASS, FAIL, INCONCLUSIVE, ERROR), ERROR),
        ((), ERROR),
    ],
)
def test_the_worst_decides_in_any_order(outcomes: tuple[Outcome, ...], verdict: Outcome) -> None:
    for order in itertools.permutations(outcomes):
        assert decide_verdict(results(*order)).outcome is verdict


def test_a_verdict_keeps_its_checks_in_order() -> None:
    checks = results(PASS, FAIL, PASS)
    assert list(decide_verdict(iter(checks)).checks) == checks


def test_a_failed_check_and_a_dead_app_are_told_apart() -> None:
    died = CheckResult("test_a", FAIL, blame="app", seen="app-1 died")
    verdict = decide_verdict([died, CheckResult("test_b", FAIL, seen="3 of 4"), CheckResult("test_c", PASS)])
    assert verdict.outcome is FAIL
    assert verdict.failed == {"test_b"}


def test_a_title_is_the_name_as_words() -> None:
    assert CheckResult("test_no_two_hits_have_one_number", PASS).title == "no two hits have one number"


@pytest.mark.parametrize(
    ("value", "limit", "is_upper", "holds", "margin"),
    [
        (1.0, 2.0, True, True, 2.0),
        (2.0, 2.0, True, True, 1.0),
        (4.0, 2.0, True, False, 0.5),
        (0.0, 2.0, True, True, float("inf")),
        (0.0, 0.0, True, True, float("inf")),
        (1.0, 0.0, True, False, 0.0),
        (4.0, 2.0, False, True, 2.0),
        (2.0, 2.0, False, True, 1.0),
        (1.0, 2.0, False, False, 0.5),
        (0.0, 2.0, False, False, 0.0),
        (1.0, 0.0, False, True, float("inf")),
        (0.0, 0.0, False, True, float("inf")),
    ],
)
def test_a_margin_says_how_many_times_the_value_is_away(value: float, limit: float, is_upper: bool, holds: bool, margin: float) -> None:
    comparison = Comparison("x", value, limit, is_upper)
    assert (comparison.holds, comparison.margin) == (holds, margin)


def test_a_promise_is_what_stands_before_its_why() -> None:
    promised, why = read_promise("""Every hit is
    counted.

    Why: the count is read,
      and written later.
    """)
    assert promised == "Every hit is counted."
    assert why == "the count is read, and written later."
    assert read_promise("Every hit is counted.") == ("Every hit is counted.", "")
    assert read_promise(None) == ("", "")


@pytest.mark.parametrize(
    ("message", "seen"),
    [
        ("3 of 4 hits", "3 of 4 hits"),
        ("3 of 4 hits\nassert 3 == 4", "3 of 4 hits"),
        ("AssertionError: 3 of 4 hits\nassert 3 == 4\n +  where 3 = f()", "3 of 4 hits"),
        ("two lines\nof message\nassert {1} == {2}\n\n  Extra items", "two lines\nof message"),
        ("assert 3 == 4\n +  where 3 = f()", ""),
        ("one should assert nothing", "one should assert nothing"),
        ("", ""),
    ],
)
def test_what_was_seen_is_the_message_without_pytests_words(message: str, seen: str) -> None:
    assert read_seen(message) == seen
