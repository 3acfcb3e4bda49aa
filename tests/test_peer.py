"""A peer: what it tells the app, what it tells the kit, and whom it tells nothing."""

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.app import Peer
from runner.errors import LabError
from runner.stack.ports import HOST

TOKEN = "known-to-the-kit-alone"
ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "labs" / "middleware" / "bench"


@pytest.fixture
def peer(tmp_path: Path, unused_ports: Callable[[int], list[int]], eventually: Callable[..., Any]) -> Iterator[Peer]:
    """The fixture lab's price list, started as the kit starts it."""
    port, control_port = unused_ports(2)
    known = Peer("price-list", HOST, port, control_port, TOKEN)
    env = {"PORT": port, "CONTROL_PORT": control_port, "CONTROL_TOKEN": TOKEN, "SEED": 7, "PYTHONPATH": ROOT, "PATH": os.environ["PATH"]}
    argv = [sys.executable, str(FOLDER / "prices.py")]
    with subprocess.Popen(argv, env={key: str(value) for key, value in env.items()}, stderr=subprocess.PIPE) as process:

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
        process.communicate()


def ask(peer: Peer, path: str, *, method: str = "GET", body: str | None = None, port: int | None = None, **headers: str) -> tuple[int, Any]:
    """One request to the public address, or to another port."""
    connection = http.client.HTTPConnection(HOST, port or peer.port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text.decode()


def test_a_call_is_answered_and_noted_with_its_caller(peer: Peer) -> None:
    assert peer.calls() == []
    assert ask(peer, "/app-2/prices/42") == (200, {"price": 3, "seed": 7, "order": 1})
    (call,) = peer.calls()
    start_ns, end_ns = call.pop("start_ns"), call.pop("end_ns")
    assert call == {"n": 1, "replica": "app-2", "method": "GET", "path": "/prices/42", "status": 200, "key": "42"}
    assert 0 < start_ns <= end_ns


def test_calls_are_numbered_and_counted(peer: Peer) -> None:
    for n in (1, 2, 3):
        assert ask(peer, "/app-1/prices/1")[1]["order"] == n
    assert [call["n"] for call in peer.calls()] == [1, 2, 3]
    ask(peer, "/app-1/prices/1")
    assert [call["n"] for call in peer.calls()] == [1, 2, 3, 4], "the whole ledger each time"


def test_its_state_can_be_changed(peer: Peer) -> None:
    peer.set(price=5)
    assert ask(peer, "/app-1/prices/1")[1]["price"] == 5
    peer.set(status=503)
    assert ask(peer, "/app-1/prices/1") == (503, {"detail": "no"})
    assert [call["status"] for call in peer.calls()] == [200, 503]


def test_a_held_call_is_in_flight_until_it_is_let_go(peer: Peer, eventually: Callable[..., Any]) -> None:
    peer.set(held=True)
    answers: list[tuple[int, Any]] = []
    caller = threading.Thread(target=lambda: answers.append(ask(peer, "/app-1/prices/1")))
    caller.start()
    (call,) = eventually(peer.calls, "the call is in the ledger")
    assert call["end_ns"] is None
    assert call["status"] is None
    assert call["key"] == "1", "what was noted so far is told"
    assert answers == []
    peer.set(held=False)
    caller.join(10)
    assert answers[0][0] == 200
    (call,) = peer.calls()
    assert call["end_ns"] >= call["start_ns"]
    assert call["status"] == 200


def test_a_bug_of_the_peer_is_noted_as_what_its_caller_saw(peer: Peer) -> None:
    assert ask(peer, "/app-1/crash", method="POST")[0] == 500
    (call,) = peer.calls()
    assert call["end_ns"] is not None
    assert call["status"] == 500


@pytest.mark.parametrize("text", ["NaN", '"\\ud800"'], ids=["no-number", "half-a-surrogate"])
def test_what_strict_json_cannot_say_is_noted_all_the_same(peer: Peer, text: str) -> None:
    """An app may send it, and what it did must stay known."""
    assert ask(peer, "/app-1/notes", method="POST", body=text)[0] == 200
    (call,) = peer.calls()
    assert repr(call["note"]) == repr(json.loads(text))
    peer.set(note=json.loads(text))


def test_an_unknown_path_is_no_call(peer: Peer) -> None:
    assert ask(peer, "/app-1/what")[0] == 404
    assert ask(peer, "/app-1/prices/1", method="DELETE")[0] == 405
    assert peer.calls() == []


def test_the_public_address_knows_nothing_of_the_control(peer: Peer) -> None:
    for path in ("/calls", "/app-1/calls", "/state"):
        assert ask(peer, path, Authorization=f"Bearer {TOKEN}")[0] == 404


def test_the_control_is_for_the_kit_alone(peer: Peer) -> None:
    for token in ("", "Bearer", "Bearer ", f"bearer {TOKEN}x", TOKEN, f"Bearer {TOKEN[:-1]}"):
        for method, path in (("GET", "/calls"), ("POST", "/state")):
            answer = ask(peer, path, method=method, port=peer._control_port, Authorization=token)
            assert answer == (403, {"detail": "not for you"}), token
    assert ask(peer, "/calls", port=peer._control_port)[0] == 403


def test_a_refusal_is_told_to_the_scenario(peer: Peer) -> None:
    with pytest.raises(LabError, match=r"the peer price-list answered 404 to GET /nothing: b'Not Found'"):
        peer.ask("GET", "/nothing")
