"""The attack engine: fresh values for each shot, the same for the same seed; who let an attack in, or kept a twin out."""

from typing import Any

import pytest

from runner.attacks import Attack, Draw, count_answered, describe, draw_shots, find_breaches, find_refused_twins
from runner.history import History, Record

ATTACKS = [Attack(name, lambda draw: ("forged", draw.random()), lambda draw: ("good", draw.random())) for name in ("alg-none", "expired", "no-token")]


def record(n: int, attack: str, *, is_twin: bool, status: int | None, failed: str | None = None) -> Record:
    context: dict[str, Any] = {"attack": attack, "is_twin": is_twin}
    return Record(n, 1, attack, "GET", "/", 1, n, n + 1, status=status, failed=failed, context=context)


def test_every_attack_and_every_twin_meets_every_replica() -> None:
    shots = draw_shots(ATTACKS, 7, each=2, replicas=3)
    fired = [(shot.attack, shot.is_twin, shot.replica) for shot in shots]
    assert len(fired) == 3 * 2 * 3 * 2
    assert all(fired.count(key) == 2 for key in fired)
    assert shots[0].context == {"attack": shots[0].attack, "is_twin": shots[0].is_twin, "replica": shots[0].replica}


def test_the_order_tells_nothing_and_is_repeated_by_the_seed() -> None:
    order = [(shot.seed, shot.turn) for shot in draw_shots(ATTACKS, 7, each=2, replicas=2)]
    assert order == [(shot.seed, shot.turn) for shot in draw_shots(ATTACKS, 7, each=2, replicas=2)]
    kinds = [shot.is_twin for shot in draw_shots(ATTACKS, 7, each=5, replicas=2)]
    assert kinds not in (sorted(kinds), sorted(kinds, reverse=True), [False, True] * 30)
    assert [key[1] for key in order] != [shot.turn for shot in draw_shots(ATTACKS, 8, each=2, replicas=2)]


def test_values_are_fresh_for_each_shot_and_repeated_by_the_seed() -> None:
    shots = draw_shots(ATTACKS, 7, each=4, replicas=2)
    values = [shot.draw() for shot in shots]
    assert len({value for _, value in values}) == len(shots)
    assert [kind for kind, _ in values] == ["good" if shot.is_twin else "forged" for shot in shots]
    assert values == [shot.draw() for shot in draw_shots(ATTACKS, 7, each=4, replicas=2)]


def test_what_is_sent_is_made_when_it_is_fired() -> None:
    made: list[float] = []
    attack = Attack("dated", lambda draw: made.append(draw.random()), lambda _: None)
    shots = [shot for shot in draw_shots([attack], 7, each=1, replicas=1) if not shot.is_twin]
    assert made == []
    shots[0].draw()
    assert made == [Draw(shots[0].seed, 0).random()]


@pytest.mark.parametrize("n", [1, 3, 4])
def test_no_form_comes_again_before_all_have_been(n: int) -> None:
    """Whichever replica they meet: an app that refuses all but one of them is found."""
    forms = tuple(range(n))
    attack = Attack("varied", lambda draw: (draw.random(), draw.vary(forms)), lambda _: None)
    for seed in range(20):
        drawn = [shot.draw()[1] for shot in draw_shots([attack], seed, each=2, replicas=2) if not shot.is_twin]
        assert set(drawn) == set(forms)
    firsts = {next(s for s in draw_shots([attack], seed, each=2, replicas=2) if not s.is_twin and s.turn == 0).draw()[1] for seed in range(40)}
    assert firsts == set(forms), "and the first one is not always the same"


@pytest.mark.parametrize(("status", "is_breach"), [(200, True), (204, True), (302, False), (401, False), (500, False), (None, False)])
def test_an_attack_got_through_when_it_was_answered_with_a_2xx(status: int | None, is_breach: bool) -> None:
    """Whatever the locustfile says of it."""
    history = History((record(1, "alg-none", is_twin=False, status=status, failed="not as the contract says"),))
    assert bool(find_breaches(history)) == is_breach
    assert find_refused_twins(history) == []


def test_a_twin_was_refused_when_it_was_answered_otherwise_than_the_contract_says() -> None:
    records = (
        record(1, "alg-none", is_twin=True, status=200),
        record(2, "alg-none", is_twin=True, status=401, failed="status 401"),
        record(3, "expired", is_twin=True, status=200, failed="an empty list"),
        record(4, "expired", is_twin=True, status=None, failed="timed out"),
        record(5, "expired", is_twin=True, status=503, failed="status 503"),
    )
    assert [r.n for r in find_refused_twins(History(records))] == [2, 3]
    assert find_breaches(History(records)) == []
    assert describe(find_refused_twins(History(records))) == "alg-none (1), expired (1)"


def test_what_was_not_answered_for_certain_does_not_count_as_tried() -> None:
    records = (
        record(1, "alg-none", is_twin=False, status=401),
        record(2, "alg-none", is_twin=False, status=500, failed="status 500"),
        record(3, "expired", is_twin=False, status=None, failed="timed out"),
        record(4, "expired", is_twin=True, status=200),
        Record(5, 1, "honest", "GET", "/", 1, 5, 6, status=200),
    )
    assert count_answered(History(records)) == {("alg-none", False): 1, ("expired", False): 0, ("expired", True): 1}
