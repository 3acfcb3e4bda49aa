"""Worlds in virtual time: the same chance for every policy, each tick decided once, and a truth that the app does not see."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from runner.app import Peer
from runner.stack.ports import HOST
from runner.world import Observation, Refused, Worlds, draw, play, read_worlds

ROOT = Path(__file__).parent.parent
TOKEN = "known-to-the-kit-alone"
TICKS = 3


class Shop:
    """A world of three weeks: what is ordered beyond the demand is waste."""

    def __init__(self, name: str) -> None:
        self.tick = 0
        self.is_over = False
        self.demand = [draw(7, name, "demand", week).randrange(10) for week in range(TICKS)]
        self.log: dict[str, Any] = {"waste": [], "demand": self.demand}

    def observe(self) -> Observation:
        return {"week": self.tick, "sold": self.demand[: self.tick]}

    def step(self, decision: Any) -> None:
        if not isinstance(decision, int):
            raise Refused(f"'{decision}' is no number of things")
        self.log["waste"].append(max(decision - self.demand[self.tick], 0))
        self.tick += 1
        self.is_over = self.tick == TICKS


def order_much(seen: Observation) -> int:
    return 100 + int(seen["week"])


@pytest.fixture
def worlds() -> Worlds:
    return Worlds(Shop, baseline=order_much)


def test_the_same_names_draw_the_same_and_others_do_not() -> None:
    assert draw(1, "a").random() == draw(1, "a").random()
    assert len({draw(*names).random() for names in [(1, "a"), (1, "b"), (2, "a"), (1, "a", "a")]}) == 4


def test_chance_is_the_same_in_every_process() -> None:
    code = "from runner.world import draw; print(draw(1, 'a').random())"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "5"}).stdout
    assert float(printed) == draw(1, "a").random()


def test_a_policy_plays_a_world_to_its_end() -> None:
    shop = Shop("north")
    assert play(shop, order_much) is shop.log
    assert shop.is_over
    assert shop.log["waste"] == [100 + week - demand for week, demand in enumerate(shop.demand)]


def test_the_baseline_meets_the_same_chance(worlds: Worlds) -> None:
    worlds.find("north")
    played = worlds.played["north"]
    assert played["baseline"]["demand"] == played["log"]["demand"]
    assert len(played["baseline"]["waste"]) == TICKS
    assert played["log"]["waste"] == []
    assert worlds.find("south").observe() == {"week": 0, "sold": []}


def test_a_tick_is_decided_once(worlds: Worlds) -> None:
    assert worlds.advance("north", 0, 3)
    assert not worlds.advance("north", 0, 5)
    assert not worlds.advance("north", 2, 5)
    assert worlds.find("north").tick == 1


def test_nothing_is_decided_after_the_end(worlds: Worlds) -> None:
    assert all(worlds.advance("north", week, 3) for week in range(TICKS))
    assert not worlds.advance("north", TICKS, 3)
    assert worlds.played["north"]["is_over"]


def test_a_refused_decision_changes_nothing(worlds: Worlds) -> None:
    with pytest.raises(Refused, match="no number"):
        worlds.advance("north", 0, "many")
    assert worlds.played["north"]["tick"] == 0
    assert worlds.advance("north", 0, 3)


@pytest.fixture
def peer(tmp_path: Path, unused_ports: Callable[[int], list[int]], eventually: Callable[..., Any]) -> Iterator[Peer]:
    """A peer with shops, started as the kit starts it."""
    script = tmp_path / "shops.py"
    script.write_text(
        "from runner.peer import Peer\nfrom runner.world import Worlds\nfrom test_world import Shop, order_much\n"
        "peer = Peer()\nWorlds(Shop, baseline=order_much).serve(peer, 'shops', ticks='weeks')\npeer.run()\n"
    )
    port, control_port = unused_ports(2)
    known = Peer("shops", HOST, port, control_port, TOKEN)
    path = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    env = {"PORT": str(port), "CONTROL_PORT": str(control_port), "CONTROL_TOKEN": TOKEN, "PYTHONPATH": path, "PATH": os.environ["PATH"]}
    with subprocess.Popen([sys.executable, str(script)], env=env) as process:

        def is_up() -> bool:
            assert process.poll() is None, "it ended"
            try:
                known.calls()
            except OSError:
                return False
            return True

        eventually(is_up, "the peer answers")
        yield known
        process.kill()


def ask(peer: Peer, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection(HOST, peer.port, timeout=10)
    try:
        connection.request(method, f"/app-1{path}", None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_the_app_sees_a_world_and_decides_its_ticks(peer: Peer) -> None:
    assert ask(peer, "GET", "/shops/north") == (200, {"week": 0, "sold": []})
    assert ask(peer, "PUT", "/shops/north/weeks/0", 3) == (200, {"now": 1})
    assert ask(peer, "GET", "/shops/north") == (200, {"week": 1, "sold": Shop("north").demand[:1]})
    assert ask(peer, "PUT", "/shops/north/weeks/0", 3)[0] == 409
    status, body = ask(peer, "PUT", "/shops/north/weeks/1", "many")
    assert (status, body["detail"]) == (422, "'many' is no number of things")
    assert [(c["world"], c.get("tick"), c.get("decision"), c["status"], c.get("refused")) for c in peer.calls()] == [
        ("north", None, None, 200, None),
        ("north", 0, "3", 200, None),
        ("north", None, None, 200, None),
        ("north", 0, "3", 409, None),
        ("north", 1, '"many"', 422, "'many' is no number of things"),
    ]


@pytest.mark.parametrize("body", [b"\xff{", b"", b'"\\ud800"'], ids=["no-json", "nothing", "half-a-surrogate"])
def test_what_cannot_be_read_is_refused_and_the_ledger_stays_whole(peer: Peer, body: bytes) -> None:
    connection = HTTPConnection(HOST, peer.port, timeout=10)
    connection.request("PUT", "/app-1/shops/north/weeks/0", body)
    assert connection.getresponse().status == 422
    connection.close()
    assert [call["status"] for call in peer.calls()] == [422]


def test_the_kit_alone_reads_both_logs(peer: Peer) -> None:
    ask(peer, "PUT", "/shops/north/weeks/0", 3)
    played = read_worlds(peer)["north"]
    assert (played.tick, played.is_over) == (1, False)
    assert len(played.log["waste"]) == 1
    assert len(played.baseline["waste"]) == TICKS
    assert ask(peer, "GET", "/shops/north")[1].keys() == {"week", "sold"}
