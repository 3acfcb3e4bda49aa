"""The Locust side of a load: stamps each request, spreads users over the replicas, and writes the history.

Runs in a process of its own: `python -m runner.recorder drive SOCKET` under the runner, or `... web TARGETS [locust options]` for
`labs load`. Stamps are taken around the client's own send and body read, since Locust rounds the times it stores and fires
`events.request` only when a `catch_response` block ends.
"""

from gevent import monkey

monkey.patch_all()

import contextvars  # noqa: E402 - nothing may be imported before the patch
import itertools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, TextIO  # noqa: E402

import gevent  # noqa: E402
from locust import User, events  # noqa: E402
from locust.clients import HttpSession  # noqa: E402
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, FastHttpSession, FastResponse, LocustUserAgent  # noqa: E402
from locust.env import Environment  # noqa: E402
from locust.util.load_locustfile import load_locustfile  # noqa: E402

from runner import pacing  # noqa: E402

PLACEHOLDER = "http://app"
BODY_BYTES = 4096
BODY_DEPTH = 100
STALL_NS = 20_000_000
DRAIN_S = 6
PATIENCE_S = 86_400.0  # for who looks at the app in a debugger


class Call:
    """One request on its way: what is known of it before its record is written."""

    def __init__(self, user: int, method: str, path: str, name: str | None, options: dict[str, Any]) -> None:
        self.user, self.method, self.path, self.name = user, method, path, name or path
        context = options.get("context")
        self.context: dict[str, Any] = {} if context is None else context  # not a copy: the locustfile adds to it, to an empty one too
        self.is_streamed = bool(options.get("stream"))
        self.pinned: int | None = self.context.get("replica")
        self.replica: int | None = None
        self.response: Any = None
        self.broken: Exception | None = None  # why the body could not be read to its end
        self.start_ns = self.end_ns = 0


class Recorder:
    """Owns the history file, the calls in flight and the replicas that are up."""

    def __init__(self, targets: list[str], history: TextIO | None) -> None:
        self.targets = targets
        self.down: set[int] = set()
        self.history = history
        self.current: contextvars.ContextVar[Call | None] = contextvars.ContextVar("call", default=None)
        self.in_flight: dict[int, Call] = {}
        self.turns = itertools.count()
        self.numbers = itertools.count(1)
        self.written = itertools.count(1)
        self.errors: list[str] = []
        for session in (FastHttpSession, HttpSession):
            self.wrap(session)
        keep_no_copy(LocustUserAgent)
        follow_no_redirect(LocustUserAgent, HttpSession)
        read_json_from_bytes(FastResponse)
        events.request.add_listener(self.on_request)
        events.user_error.add_listener(self.on_user_error)

    def wrap(self, session_class: Any) -> None:
        """Put the stamps around the client's own send and body read."""
        request, send = session_class.request, session_class._send_request_safe_mode  # noqa: SLF001
        recorder = self

        def recorded_request(session: Any, method: str, url: str, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
            call = Call(recorder.number(session.user), method, url, name or session.request_name, kwargs)
            token = recorder.current.set(call)
            try:
                return request(session, method, url, name, *args, **kwargs)
            finally:
                recorder.current.reset(token)

        def stamped_send(session: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            call = recorder.current.get()
            if call is None or not url.startswith(PLACEHOLDER):
                return send(session, method, url, *args, **kwargs)
            call.replica = recorder.choose(call)
            recorder.in_flight[id(call)] = call
            target = recorder.targets[call.replica - 1] + url.removeprefix(PLACEHOLDER)
            call.start_ns = time.monotonic_ns()
            response = send(session, method, target, *args, **kwargs)
            if not call.is_streamed:
                try:
                    _ = response.content
                except Exception as error:  # noqa: BLE001 - cut off, or not encoded as its head says; requests has read it before
                    call.broken = error
                    response._cached_content = b""  # noqa: SLF001 - for Locust and the locustfile, which read it again
                    response.release()
            call.end_ns = time.monotonic_ns()
            call.response = response
            response._labs_call = call  # noqa: SLF001
            return response

        session_class.request = recorded_request
        session_class._send_request_safe_mode = stamped_send  # noqa: SLF001

    def number(self, user: User | None) -> int:
        """A small number for each user of the run, from 1; 0 for none."""
        if user is None:
            return 0
        if "_labs_number" not in user.__dict__:
            user.__dict__["_labs_number"] = next(self.numbers)
        return int(user.__dict__["_labs_number"])

    def choose(self, call: Call) -> int:
        """The replica for a call: round robin over those that are up, as a load balancer in front of them would."""
        if call.pinned is not None:
            return call.pinned
        up = [n for n in range(1, len(self.targets) + 1) if n not in self.down] or list(range(1, len(self.targets) + 1))
        return up[next(self.turns) % len(up)]

    def on_request(self, response: Any, exception: BaseException | None, name: str, **_: Any) -> None:
        """Locust reports a request: it is over, and judged by the locustfile."""
        call = getattr(response, "_labs_call", None)
        if call is not None and id(call) in self.in_flight:
            del self.in_flight[id(call)]
            call.name = name.removeprefix(PLACEHOLDER)
            failed = exception or call.broken
            self.write(call, response, str(failed) or type(failed).__name__ if failed else None)

    def on_user_error(self, exception: BaseException, tb: Any, **_: Any) -> None:
        """The locustfile itself failed."""
        self.errors.append("".join(traceback.format_exception(type(exception), exception, tb)))

    def write(self, call: Call, response: Any, failed: str | None) -> None:
        """Append a call's record to the history."""
        if self.history is None:
            return
        # What breaks off, or is not encoded as its head says, answers nobody.
        status = None if call.broken else getattr(response, "status_code", None) or None
        headers = {k.lower(): v for k, v in (response.headers or {}).items()} if status else {}
        context = dict(call.context)
        record = {
            "n": next(self.written),
            "user": call.user,
            "name": call.name,
            "method": call.method,
            "path": call.path,
            "replica": call.replica,
            "start_ns": call.start_ns,
            "end_ns": call.end_ns or time.monotonic_ns(),
            "intended_ns": context.pop("intended_ns", None),
            "status": status,
            "failed": failed,
            "context": context,
            "headers": headers,
            "body": parsed_body(response) if status and not call.is_streamed else None,
        }
        self.history.write(json.dumps(record, default=str) + "\n")

    def note(self, kind: str, **values: Any) -> None:
        """Write a line that is no request."""
        if self.history is not None:
            self.history.write(json.dumps({"kind": kind, **values}) + "\n")

    def abandon(self) -> None:
        """Record what was sent and never reported: without an answer the operation may have happened."""
        for call in self.in_flight.values():
            # Answered, and its block left by StopUser, say.
            is_ok = not call.broken and bool(getattr(call.response, "status_code", 0)) and call.response.ok
            self.write(call, call.response, None if is_ok else "no answer before the load ended")
        self.in_flight.clear()

    def watch_stalls(self) -> None:
        """The canary: a sleeper of 10 ms whose oversleep says how long the load itself stood still."""
        while True:
            start_ns = time.monotonic_ns()
            gevent.sleep(0.01)
            stall_ns = time.monotonic_ns() - start_ns - 10_000_000
            if stall_ns > STALL_NS:
                self.note("stall", at_ns=start_ns, stall_ns=stall_ns)


def follow_no_redirect(agent_class: Any, session_class: Any) -> None:
    """A redirect is an answer, and may lead anywhere."""
    agent_class.redirect_response_codes = frozenset()
    session_class.get_redirect_target = lambda _session, _response: None


def read_json_from_bytes(response_class: Any) -> None:
    """JSON is UTF-8 whatever the head says (RFC 8259, 8.1), and what it says may be no charset: `answer.json()` shall fail with ValueError alone."""
    response_class.json = lambda response: json.loads(response.content)


def keep_no_copy(agent_class: Any) -> None:
    """Before it gives back the connection of an error status, geventhttpclient takes a copy of the body as UTF-8: any bytes shall do."""

    def read_body(_url: str, response: Any, **_options: Any) -> str:
        try:
            _ = response.content
        except FAILURE_EXCEPTIONS:
            raise
        except Exception:  # noqa: BLE001, S110 - in an encoding that nobody knows: `stamped_send` meets it again
            pass
        return ""

    agent_class._conversation_str = staticmethod(read_body)  # noqa: SLF001


def parsed_body(response: Any) -> Any:
    """The answer as JSON, when it is JSON, at most 4 KiB, and not so deep that who reads the history runs out of stack."""
    try:
        content = response.content
        body = json.loads(content) if content and len(content) <= BODY_BYTES else None
    except Exception:  # noqa: BLE001 - a stranger's bytes: whatever they are, they are no JSON
        return None
    return body if depth_of(body) <= BODY_DEPTH else None


def depth_of(body: Any) -> int:
    """How deep lists and objects lie in each other."""
    depth, level = 0, [body]
    while level := [inner for one in level if isinstance(one, dict | list) for inner in (one.values() if isinstance(one, dict) else one)]:
        depth += 1
    return depth


def drive(socket_path: str) -> None:
    """Serve one load: wait for `start`, run the locustfile's users until they end or `stop` comes, and say `done`."""
    control = socket.socket(socket.AF_UNIX)
    control.connect(socket_path)
    lines = control.makefile("r")
    first = lines.readline()
    if not first:
        return
    start = json.loads(first)
    os.environ["LAB_PLAN"] = json.dumps(start["plan"])
    with Path(start["history"]).open("w", buffering=1) as history:
        recorder = Recorder(start["targets"], history)
        recorder.down = set(start["down"])
        try:
            run_users(start, recorder, lines)
        except (Exception, SystemExit):  # noqa: BLE001 - told to the runner, which blames the locustfile
            recorder.errors.append(traceback.format_exc())
        recorder.abandon()
    done = {"event": "done", "errors": recorder.errors[:3], "error_count": len(recorder.errors)}
    control.sendall(json.dumps(done).encode() + b"\n")


def run_users(start: dict[str, Any], recorder: Recorder, lines: Any) -> None:
    """Run the locustfile's users until they have ended or the runner says so."""
    sys.path.insert(0, str(Path(start["locustfile"]).parent))
    user_classes = load_locustfile(start["locustfile"])[0]
    if not user_classes:
        raise ValueError("the locustfile has no user class")
    environment = Environment(user_classes=list(user_classes.values()), events=events, host=PLACEHOLDER, stop_timeout=DRAIN_S)
    for user_class in environment.user_classes:
        user_class.host = PLACEHOLDER
        if start.get("is_patient"):
            for limit in ("network_timeout", "connection_timeout"):
                setattr(user_class, limit, PATIENCE_S)
    events.init.fire(environment=environment, runner=None, web_ui=None)
    runner = environment.create_local_runner()
    stopped = gevent.event.Event()

    def obey() -> None:
        for line in lines:
            order = json.loads(line)
            if order["do"] == "stop":
                break
            (recorder.down.add if order["do"] == "down" else recorder.down.discard)(order["replica"])
        stopped.set()

    gevent.spawn(obey)
    gevent.spawn(recorder.watch_stalls)
    runner.start(start["users"], spawn_rate=max(start["users"], 1))
    if runner.spawning_greenlet:
        runner.spawning_greenlet.join()
    while len(runner.user_greenlets) > 0 and not stopped.is_set():
        stopped.wait(0.01)
    pacing.ending.set()
    runner.stop()
    runner.quit()


def serve_web(targets: list[str], options: list[str]) -> None:
    """Locust's own command line and web page, with users spread over the replicas."""
    Recorder(targets, None)
    from locust.main import main

    sys.argv = ["locust", "--host", PLACEHOLDER, *options]
    main()


if __name__ == "__main__":
    if sys.argv[1] == "drive":
        drive(sys.argv[2])
    else:
        serve_web(sys.argv[2].split(","), sys.argv[3:])
