"""The recorder's stamps, against a server that knows when each byte came and went."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import pytest

from runner.history import History, Record

if TYPE_CHECKING:
    from conftest import Clockwork, Loads, Visit

    Told = dict[str, tuple[Record, Visit]]

HEAD_S, BODY_S, BLOCK_S = 0.3, 0.2, 0.4
# What the way through two sockets and two schedulers may cost beside it; the block's time, were it counted, would be more.
SLACK_NS = int(BLOCK_S * 1e9 / 2)
PLACES = ("plain", "caught", "streamed", "streamed-caught")
LOCUSTFILE = f"""
    import time

    import gevent
    from locust import FastHttpUser, HttpUser, task
    from locust.exception import StopUser

    DELAYS = "head={HEAD_S}&body={BODY_S}&size=1000"


    def visit(client, kind):
        client.get(f"/{{kind}}/plain?{{DELAYS}}", name="plain", context={{"key": kind}})
        with client.get(f"/{{kind}}/caught?{{DELAYS}}", catch_response=True) as answer:
            gevent.sleep({BLOCK_S})
        answer = client.get(f"/{{kind}}/streamed?{{DELAYS}}", stream=True)
        read = sum(len(chunk) for chunk in answer.iter_content(100))
        client.get(f"/{{kind}}/told?read={{read}}")
        with client.get(f"/{{kind}}/streamed-caught?{{DELAYS}}", stream=True, catch_response=True) as answer:
            read = sum(len(chunk) for chunk in answer.iter_content(100))
            gevent.sleep({BLOCK_S})
            if read != 1000:
                answer.failure(f"read {{read}}")
        raise StopUser


    class Fast(FastHttpUser):
        fixed_count = 1

        @task
        def visit(self):
            visit(self.client, "fast")


    class Slow(HttpUser):
        fixed_count = 1

        @task
        def visit(self):
            visit(self.client, "slow")
"""


@pytest.fixture(scope="module")
def clockwork(serve: "Callable[[], Clockwork]") -> "Clockwork":
    return serve()


@pytest.fixture(scope="module")
def told(clockwork: "Clockwork", loads: "Loads") -> "Told":
    """Each request of both clients as recorded, and as the server saw it."""
    with loads(LOCUSTFILE, [clockwork.url], users=2) as load:
        pass
    visits = {visit.path: visit for visit in clockwork.visits}
    return {path: (record, visits[path]) for record in load.history if (path := record.path.partition("?")[0])}


@pytest.mark.parametrize("kind", ["fast", "slow"])
@pytest.mark.parametrize("place", PLACES)
def test_the_stamps_enclose_just_the_send_and_the_body(told: "Told", kind: str, place: str) -> None:
    record, visit = told[f"/{kind}/{place}"]
    last_ns = visit.headed_ns if place.startswith("streamed") else visit.sent_ns
    assert record.start_ns < visit.arrived_ns
    assert last_ns < record.end_ns
    assert visit.headed_ns - visit.arrived_ns >= HEAD_S * 1e9, "the test itself is broken"
    assert visit.sent_ns - visit.headed_ns >= BODY_S * 1e9, "the test itself is broken"
    outside_ns = (record.end_ns - record.start_ns) - (last_ns - visit.arrived_ns)
    assert outside_ns < SLACK_NS, f"{outside_ns / 1e6:.0f} ms are in the record that the server did not take"


@pytest.mark.parametrize("kind", ["fast", "slow"])
def test_a_streamed_body_is_the_users(told: "Told", kind: str) -> None:
    """Its record ends with the head, and the recorder reads nothing of the body."""
    record, visit = told[f"/{kind}/streamed"]
    assert record.end_ns < visit.sent_ns
    assert record.body is None
    assert told[f"/{kind}/told"][1].query == {"read": "1000"}
    record, visit = told[f"/{kind}/streamed-caught"]
    assert record.failed is None


@pytest.mark.parametrize("kind", ["fast", "slow"])
def test_what_is_recorded_beside_the_times(told: "Told", kind: str) -> None:
    record, _ = told[f"/{kind}/plain"]
    assert (record.name, record.method, record.replica, record.status, record.failed) == ("plain", "GET", 1, 200, None)
    assert record.path == f"/{kind}/plain?head=0.3&body=0.2&size=1000"
    assert record.context == {"key": kind}
    assert record.headers["content-length"] == "1000"
    assert record.body == "x" * 998
    assert record.outcome == "ok"
    assert record.intended_ns is None
    caught, _ = told[f"/{kind}/caught"]
    assert caught.name == caught.path


def test_users_have_small_numbers_of_their_own(told: "Told") -> None:
    users = {kind: {record.user for path, (record, _) in told.items() if path.startswith(f"/{kind}/")} for kind in ("fast", "slow")}
    assert sorted(users.values(), key=min) == [{1}, {2}]


# Answers that are none


@pytest.fixture(scope="module")
def oddities(serve: "Callable[[], Clockwork]", loads: "Loads") -> History:
    """What can go wrong with an answer, with both clients; the second replica is a port where nobody listens."""
    clockwork, gone = serve(), serve()
    gone.close()
    locustfile = """
        from gevent import Timeout
        from locust import FastHttpUser, HttpUser, task
        from locust.exception import StopUser


        def visit(client, kind, short):
            def get(path, **options):
                return client.get(path, name=path, context={"kind": kind, "replica": 1}, **options)

            get("/missing?status=404")
            get("/broken?status=503")
            get("/cut?size=100&cut=40")
            get("/late?head=30", **short)
            get("/big?size=5000")
            client.get("/refused", name="/refused", context={"kind": kind, "replica": 2})
            with get("/said-wrong", catch_response=True) as answer:
                answer.failure("not what was asked for")
            with get("/said-right?status=409", catch_response=True) as answer:
                answer.success()
            with get("/last", catch_response=True) as answer:
                raise StopUser


        class Fast(FastHttpUser):
            fixed_count = 1
            network_timeout = 0.5

            @task
            def visit(self):
                visit(self.client, "fast", {})


        class Slow(HttpUser):
            fixed_count = 1

            @task
            def visit(self):
                visit(self.client, "slow", {"timeout": 0.5})
    """
    with loads(locustfile, [clockwork.url, gone.url], users=2) as load:
        pass
    return load.history


@pytest.mark.parametrize("kind", ["fast", "slow"])
@pytest.mark.parametrize(
    ("path", "status", "outcome", "failed"),
    [
        ("/missing?status=404", 404, "fail", True),
        ("/broken?status=503", 503, "unknown", True),
        ("/late?head=30", None, "unknown", True),
        ("/refused", None, "unknown", True),
        ("/said-wrong", 200, "fail", True),
        ("/said-right?status=409", 409, "ok", False),
        ("/big?size=5000", 200, "ok", False),
    ],
)
def test_how_a_request_ended(oddities: History, kind: str, path: str, status: int | None, outcome: str, failed: bool) -> None:
    (record,) = oddities.where(name=path, kind=kind)
    assert (record.status, record.outcome, record.failed is not None) == (status, outcome, failed)
    assert record.start_ns < record.end_ns


@pytest.mark.parametrize("kind", ["fast", "slow"])
def test_an_answer_cut_off_is_no_answer(oddities: History, kind: str) -> None:
    """Its head said 200, but nobody knows what the rest would have said."""
    (record,) = oddities.where(name="/cut?size=100&cut=40", kind=kind)
    assert record.failed is not None
    assert (record.status, record.outcome, record.effect, record.body) == (None, "unknown", "unknown", None)


@pytest.mark.parametrize("kind", ["fast", "slow"])
def test_an_answer_is_recorded_when_its_user_stops_in_the_block(oddities: History, kind: str) -> None:
    (record,) = oddities.where(name="/last", kind=kind)
    assert record.status == 200


def test_a_body_above_4_kib_is_left_out(oddities: History) -> None:
    assert [record.body for record in oddities.where(name="/big?size=5000")] == [None, None]


def test_a_timeout_ends_when_it_was_given_up(oddities: History) -> None:
    for record in oddities.where(name="/late?head=30"):
        assert record.latency_s >= 0.5
        assert record.latency_s < 5


def garble(handler: BaseHTTPRequestHandler) -> None:
    """Answer `/gzip/404` with a head of that status, which says that the body is gzip, and a body that is not."""
    _, coding, status = handler.path.split("/")
    handler.send_response(int(status))
    handler.send_header("Content-Encoding", coding)
    handler.send_header("Content-Length", "4")
    handler.end_headers()
    handler.wfile.write(b"\xffabc")


def test_an_answer_that_cannot_be_decoded_is_none(serve: "Callable[[], Clockwork]", loads: "Loads", monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no answer, by the app's doing, and no error of the locustfile that looks at it. More of them than a client has connections for."""
    clockwork = serve()
    monkeypatch.setattr(clockwork, "answer", garble)
    locustfile = """
        from locust import FastHttpUser, task
        from locust.exception import StopUser

        class Reader(FastHttpUser):
            @task
            def read(self):
                for path in ["/gzip/200", "/br/200", *["/zstd/200"] * 12, "/zstd/503", "/identity/404"]:
                    context = {"read": None}
                    with self.client.get(path, context=context, catch_response=True) as answer:
                        context["read"] = repr(answer.content)
                        answer.success()
                raise StopUser
    """
    with loads(locustfile, [clockwork.url]) as load:
        pass
    assert len(load.history) == 16
    told = {record.path: (record.status, record.failed is not None, record.context["read"]) for record in load.history}
    assert told == {
        "/gzip/200": (None, True, "b''"),
        "/br/200": (None, True, "b''"),
        "/zstd/200": (None, True, "b''"),
        "/zstd/503": (None, True, "b''"),
        "/identity/404": (404, False, repr(b"\xffabc")),
    }


def move(handler: BaseHTTPRequestHandler) -> None:
    """Answer with a redirect, to a place that cannot be read where the path says so."""
    handler.send_response(307)
    handler.send_header("Location", {"/torn": "http://127.0.0.1:${PORT}/", "/open": "http://[x", "/bytes": "/\xff"}.get(handler.path, "/there"))
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def test_a_redirect_is_not_followed(serve: "Callable[[], Clockwork]", loads: "Loads", monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the app's answer, and may lead anywhere."""
    clockwork = serve()
    monkeypatch.setattr(clockwork, "answer", move)
    locustfile = """
        from locust import FastHttpUser, HttpUser, task
        from locust.exception import StopUser

        def visit(user):
            for path in ("/bytes", "/open", "/torn", "/whole"):
                user.client.get(path)
            raise StopUser

        class Fast(FastHttpUser):
            fixed_count = 1
            tasks = [visit]

        class Slow(HttpUser):
            fixed_count = 1
            tasks = [visit]
    """
    with loads(locustfile, [clockwork.url], users=2) as load:
        pass
    assert sorted(record.path for record in load.history) == sorted(["/bytes", "/open", "/torn", "/whole"] * 2)
    assert {record.status for record in load.history} == {307}


def mislabel(handler: BaseHTTPRequestHandler) -> None:
    """Answer with JSON, or with bytes that are none, in a charset that does not exist, said twice, or not at all."""
    body = b'{"n": 1}' if handler.path.startswith("/json") else b"\xff\xfe\x00"
    handler.send_response(200)
    for _ in range({"charset": 1, "twice": 2}.get(handler.path.rpartition("-")[2], 0)):
        handler.send_header("Content-Type", "application/json; charset=utf8mb4")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_json_is_read_whatever_its_charset(serve: "Callable[[], Clockwork]", loads: "Loads", monkeypatch: pytest.MonkeyPatch) -> None:
    clockwork = serve()
    monkeypatch.setattr(clockwork, "answer", mislabel)
    locustfile = """
        from locust import FastHttpUser, task
        from locust.exception import StopUser

        class Reader(FastHttpUser):
            @task
            def read(self):
                for what in ("json", "bytes"):
                    for how in ("charset", "twice", "bare"):
                        context = {}
                        with self.client.get(f"/{what}-{how}", context=context, catch_response=True) as answer:
                            try:
                                context["said"] = answer.json()
                            except ValueError:
                                context["said"] = "no JSON"
                raise StopUser
    """
    with loads(locustfile, [clockwork.url]) as load:
        pass
    assert [record.context["said"] for record in load.history] == [{"n": 1}] * 3 + ["no JSON"] * 3


def nest(handler: BaseHTTPRequestHandler) -> None:
    """Answer `/50` with so many lists in each other."""
    depth = int(handler.path.removeprefix("/"))
    body = b"[" * depth + b"]" * depth
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_a_body_that_is_too_deep_is_left_out(serve: "Callable[[], Clockwork]", loads: "Loads", monkeypatch: pytest.MonkeyPatch) -> None:
    """It fits into 4 KiB, and nobody who reads the history could follow it."""
    clockwork = serve()
    monkeypatch.setattr(clockwork, "answer", nest)
    locustfile = """
        from locust import FastHttpUser, task
        from locust.exception import StopUser

        class Reader(FastHttpUser):
            @task
            def read(self):
                for depth in (3, 900, 2000):
                    self.client.get(f"/{depth}")
                raise StopUser
    """
    with loads(locustfile, [clockwork.url]) as load:
        pass
    assert [(record.path, record.status, record.body) for record in load.history] == [("/3", 200, [[[]]]), ("/900", 200, None), ("/2000", 200, None)]


# Replicas


@pytest.fixture(scope="module")
def three(serve: "Callable[[], Clockwork]") -> "list[Clockwork]":
    return [serve(), serve(), serve()]


def test_users_are_spread_over_the_replicas_in_turn(three: "list[Clockwork]", loads: "Loads") -> None:
    locustfile = """
        from locust import FastHttpUser, task
        from locust.exception import StopUser

        class Caller(FastHttpUser):
            @task
            def call(self):
                for i in range(6):
                    self.client.get(f"/turn/{i}")
                self.client.get("/pinned", context={"replica": 2})
                self.client.get("/pinned", context={"replica": 2})
                raise StopUser
    """
    before = [len(server.visits) for server in three]
    with loads(locustfile, [server.url for server in three]) as load:
        pass
    assert [record.replica for record in load.history] == [1, 2, 3, 1, 2, 3, 2, 2]
    paths = [[visit.path for visit in server.visits[n:]] for server, n in zip(three, before, strict=True)]
    assert paths == [["/turn/0", "/turn/3"], ["/turn/1", "/turn/4", "/pinned", "/pinned"], ["/turn/2", "/turn/5"]]


def test_no_new_request_goes_to_a_replica_that_is_down(three: "list[Clockwork]", loads: "Loads", eventually: Callable[..., object]) -> None:
    locustfile = """
        from locust import FastHttpUser, constant, task

        class Caller(FastHttpUser):
            wait_time = constant(0.005)

            @task
            def call(self):
                self.client.get("/x")
    """

    def counts() -> list[int]:
        return [len(server.visits) for server in three]

    def await_some_more(of: set[int]) -> list[int]:
        start = counts()
        eventually(lambda: all(counts()[n] > start[n] + 5 for n in of), f"visits of {of}")
        return [now - then for now, then in zip(counts(), start, strict=True)]

    with loads(locustfile, [server.url for server in three], is_endless=True, down=[3]) as load:
        assert await_some_more({0, 1})[2] == 0, "down from the start"
        load.mark_down(1)
        await_some_more({1})  # the order is on its way meanwhile
        assert await_some_more({1})[0] == 0
        load.mark_up(1)
        load.mark_up(3)
        await_some_more({0, 1, 2})
        load.mark_down(1)
        load.mark_down(2)
        load.mark_down(3)
        await_some_more({0, 1, 2})  # nobody is up: what could a balancer do but try
        await_some_more({0, 1, 2})
    # The load has no end of its own: a request may be under way when it is stopped.
    assert {record.status for record in load.history if record.failed != "no answer before the load ended"} == {200}


# The end


def test_what_is_in_flight_at_the_end_is_unknown(serve: "Callable[[], Clockwork]", loads: "Loads") -> None:
    """A request that was sent may have had its effect, though nobody waits for the answer any more."""
    clockwork = serve()
    locustfile = """
        from locust import FastHttpUser, task

        class Waiter(FastHttpUser):
            @task
            def wait(self):
                self.client.get("/quick")
                self.client.get("/answered?head=1", context={"key": "a"})
                self.client.get("/hangs?hang=1", name="hangs", context={"key": "b"})
    """
    with loads(locustfile, [clockwork.url], users=2, until=lambda: sum("hang" in v.query for v in clockwork.visits) == 2) as load:
        pass
    hanging = load.history.where(name="hangs")
    assert len(hanging) == 2
    for record in hanging:
        assert (record.status, record.outcome, record.effect, record.context) == (None, "unknown", "unknown", {"key": "b"})
        assert record.failed == "no answer before the load ended"
        assert record.start_ns < min(v.arrived_ns for v in clockwork.visits if "hang" in v.query) + 10**9
        assert load.start_ns < record.start_ns < record.end_ns <= load.end_ns
    assert len(load.history.where(outcome="ok")) == 4
    assert len(load.history) == 6


def test_what_is_answered_during_the_drain_is_recorded_as_answered(serve: "Callable[[], Clockwork]", loads: "Loads") -> None:
    clockwork = serve()
    locustfile = """
        from locust import FastHttpUser, task

        class Waiter(FastHttpUser):
            @task
            def wait(self):
                self.client.get("/slow?head=0.5")
    """
    with loads(locustfile, [clockwork.url], users=3, until=lambda: len(clockwork.visits) >= 3) as load:
        pass
    assert load.history.outcomes() == {"ok": len(clockwork.visits), "fail": 0, "unknown": 0}
