"""`labs ui` without a browser: who may come in, what is shown, one run at a time, and its end. How it looks is shown in tests/browser."""

import asyncio
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from runner.errors import MachineError
from runner.lab import read_lab
from runner.ui.conductor import LiveRun
from runner.ui.follow import Follower
from runner.ui.prose import render
from runner.ui.server import listen

if TYPE_CHECKING:
    from conftest import Kit

LABS = Path(__file__).parent / "labs"
VERDICT_WITHIN_S = 60.0


@dataclass
class Answer:
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    text: str


class Site:
    """`labs ui` on the fixture labs."""

    def __init__(self, kit: "Kit") -> None:
        self.process: subprocess.Popen[str] = kit.start("ui")
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://(127\.0\.0\.1:(\d+))/", line)
        assert found, line
        self.host, self.port = found[1], int(found[2])

    def ask(self, method: str, path: str, **headers: str | None) -> Answer:
        """One request, as a page of the site would send it; a header that is None is left out."""
        sent = {"Host": self.host, **({} if method == "GET" else {"Origin": f"http://{self.host}"})}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=VERDICT_WITHIN_S)
        connection.putrequest(method, path, skip_host=True)
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, text)

    def events(self, path: str, **headers: str) -> list[dict[str, Any]]:
        """The events of a run, to their end."""
        answer = self.ask("GET", path, **headers)
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]

    def run(self, submission: str) -> dict[str, Any]:
        """Run one to its end, and return the last event."""
        assert self.ask("POST", f"/labs/hits/run/{submission}").status == 303
        return self.events(self.stream())[-1]

    def stream(self) -> str:
        """Where the run that the page shows tells its events."""
        found = re.search(r'data-events="([^"]+)"', self.ask("GET", "/labs/hits").text)
        assert found
        return found[1]

    def stop(self, signo: int = signal.SIGINT) -> int:
        """Ctrl-C; its exit code."""
        self.process.send_signal(signo)
        return self.process.wait(30)


@pytest.fixture
def site(kit: "Kit") -> Iterator[Site]:
    one = Site(kit)
    yield one
    if one.process.poll() is None:
        assert one.stop() == 0


def wait_long(kit: "Kit") -> None:
    """Have the lab go on until somebody ends it."""
    mark = '        lab.mark("the visitors come")'
    kit.edit("microservices/hits/test_lab.py", mark, f"{mark}\n        lab.until(lambda: False, 60)")


def test_only_the_loopback_listens(site: Site) -> None:
    listening = [c.laddr for c in psutil.Process(site.process.pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", site.port)]


def test_every_answer_is_closed_against_other_pages(site: Site) -> None:
    for path in ("/", "/labs/hits", "/assets/ui.js", "/nothing"):
        headers = site.ask("GET", path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'"), path
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    text = site.ask("GET", "/labs/hits").text
    assert not re.search(r"<script(?! src=\"/assets/)|\bstyle=|\bon\w+=\"", text), "the policy forbids it: nothing of it would work"


STRANGE_HOSTS = ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "", None]


def test_a_name_that_was_bound_to_this_machine_is_refused(site: Site) -> None:
    """DNS rebinding: the stranger's page asks for its own name."""
    for host in STRANGE_HOSTS:
        for method, path in (("GET", "/"), ("POST", "/labs/hits/run/starter")):
            named = None if host is None else host.format(port=site.port)
            assert site.ask(method, path, Host=named, Origin=f"http://{named}").status in (400, 403), host
    assert site.ask("GET", "/", Host=f"localhost:{site.port}").status == 200


STRANGERS: list[dict[str, str | None]] = [
    {"Origin": None},
    {"Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "https://{host}"},
    {"Origin": "http://{host}.evil.example"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
]


def test_what_another_page_sends_does_nothing(site: Site, kit: "Kit") -> None:
    for path in ("/labs/hits/run/starter", "/labs/hits/hint", "/stop"):
        for headers in STRANGERS:
            answer = site.ask("POST", path, **{name: value and value.format(host=site.host) for name, value in headers.items()})
            assert answer.status == 403, headers
            assert answer.text.startswith("refused: a POST must come from a page of ")
        assert site.ask("GET", path).status == 405, "what changes something is a POST"
    assert not (kit.root / ".labs").exists()


UNKNOWN = [
    ("GET", "/labs/none"),
    ("GET", "/labs/..%2f..%2fetc"),
    ("GET", "/labs/microservices%2fhits"),
    ("POST", "/labs/hits/run/wrong%2fnumbers-twice"),
    ("POST", "/labs/hits/run/--help"),
    ("POST", "/labs/hits/run/%2ftmp"),
    ("POST", "/labs/hits/run/solution"),
    ("GET", "/runs/none/report.html"),
    ("GET", "/runs/../report.html"),
    ("GET", "/runs/..%2f..%2fx/report.html"),
    ("GET", "/runs/..%2fx/report.html"),
    ("GET", "/runs/none/events"),
    ("GET", "/assets/report.js"),
    ("GET", "/assets/..%2f..%2fcli.py"),
    ("GET", "/my/secret"),
]


def test_what_is_not_known_by_name_is_not_there(site: Site, kit: "Kit") -> None:
    (kit.root / ".labs" / "x").mkdir(parents=True)
    (kit.root / ".labs" / "x" / "report.html").write_text("secret")
    (kit.root / ".labs" / "report.html").write_text("secret")
    for method, path in UNKNOWN:
        answer = site.ask(method, path)
        assert answer.status == 404, path
        assert "secret" not in answer.text
    assert not (kit.root / ".labs" / "runs").exists()


def test_the_map_has_every_topic_and_the_learners_states(site: Site, kit: "Kit") -> None:
    states = {"hits": {"state": "passed", "hints": 2}, "unsure": {"state": "failed", "hints": 0}}
    (kit.root / ".labs").mkdir()
    (kit.root / ".labs" / "progress.json").write_text(json.dumps({"version": 1, "labs": states}))
    kit.edit("middleware/bench/lab.toml", "title = ", "titel = ")
    text = site.ask("GET", "/").text
    assert text.count('<section class="topic') == 16
    assert re.search(r'href="/labs/hits">Hits</a> <span class="state passed">', text)
    assert re.search(r'href="/labs/unsure">Unsure</a> <span class="state failed">', text)
    assert "bench is broken" in text
    assert "1 of 2 labs passed" in text
    assert site.ask("GET", "/labs/bench").status == 500


def test_hints_come_one_by_one_and_are_remembered_as_by_the_command(site: Site, kit: "Kit") -> None:
    assert kit.labs("hint", "hits").returncode == 0
    text = site.ask("GET", "/labs/hits").text
    assert "Count." in text
    assert "Count each." not in text
    answer = site.ask("POST", "/labs/hits/hint")
    assert (answer.status, answer.headers["location"]) == (303, "/labs/hits#hints")
    text = site.ask("GET", "/labs/hits").text
    assert "Count each." in text
    assert "Count each once." not in text
    assert kit.labs("hint", "hits").stdout.startswith("Hint 3 of 3")
    assert "Show hint" not in site.ask("GET", "/labs/hits").text


def test_starter_then_mine_then_solution(site: Site, kit: "Kit") -> None:
    last = site.run("starter")
    assert last["verdict"] == "FAIL"
    assert [c["outcome"] for c in last["checks"]] == ["FAIL", "PASS"]
    assert last["checks"][0]["seen"].startswith("10 of 20 hits counted")
    report = site.ask("GET", last["report"])
    assert report.status == 200
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert "A lock makes reading" not in site.ask("GET", "/labs/hits").text
    (kit.root / "my" / "hits").mkdir(parents=True)
    (kit.root / "my" / "hits" / "app.py").write_text((kit.lab("hits") / "solution" / "app.py").read_text())
    assert site.run("mine")["verdict"] == "PASS"
    assert json.loads((kit.root / ".labs" / "progress.json").read_text())["labs"]["hits"]["state"] == "passed"
    assert "A lock makes reading" in site.ask("GET", "/labs/hits").text
    assert site.run("solution")["verdict"] == "PASS"
    assert site.ask("GET", "/labs/hits").text.count(">report</a>") == 3


def test_the_events_tell_the_run_from_the_first_or_from_where_one_was(site: Site) -> None:
    site.run("starter")
    events = site.events(site.stream())
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "line"
    assert kinds[-1] == "end"
    assert kinds.count("end") == 1
    assert any("the visitors come" in event.get("text", "") for event in events)
    latest = {point["n"]: point for event in events if event["kind"] == "points" for point in event["points"]}
    assert sum(point["ok"] + point["fail"] + point["unknown"] for point in latest.values()) * 0.25 == 20
    assert site.events(site.stream(), Last_Event_ID=str(len(events) - 1)) == events[-1:]
    assert site.events(site.stream(), Last_Event_ID="x") == events


def test_one_run_at_a_time(site: Site, kit: "Kit") -> None:
    wait_long(kit)
    assert site.ask("POST", "/labs/hits/run/starter").status == 303
    for path in ("/labs/hits/run/starter", "/labs/unsure/run/starter"):
        second = site.ask("POST", path)
        assert second.status == 409
        assert "hits (starter) is running, and there is one run at a time" in second.text
        assert "hint: wait for its verdict, or stop it" in second.text
    assert "hits</a> is running" in site.ask("GET", "/labs/unsure").text
    assert site.ask("POST", "/stop").status == 303
    assert site.events(site.stream())[-1]["verdict"] == "STOPPED"
    assert site.ask("POST", "/labs/unsure/run/starter").status == 303


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
def test_its_end_is_the_end_of_the_run_and_of_who_looks_on(
    site: Site, kit: "Kit", signo: signal.Signals, eventually: Callable[..., Any], processes: Callable[[], list[psutil.Process]]
) -> None:
    wait_long(kit)
    site.ask("POST", "/labs/hits/run/starter")
    stream = site.stream()
    with socket.create_connection(("127.0.0.1", site.port)) as looking_on:
        looking_on.sendall(f"GET {stream} HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode())
        seen = b""
        while b"the visitors come" not in seen:
            data = looking_on.recv(4096)
            assert data, seen
            seen += data
        assert len(processes()) > 3
        assert site.stop(signo) == (0 if signo == signal.SIGINT else -signo)
        assert processes() == []
        while data := looking_on.recv(4096):
            seen += data
    assert b'"verdict": "STOPPED"' in seen


def test_a_killed_server_leaves_nothing(
    site: Site, kit: "Kit", eventually: Callable[..., Any], processes: Callable[[], list[psutil.Process]]
) -> None:
    wait_long(kit)
    site.ask("POST", "/labs/hits/run/starter")
    eventually(lambda: len(processes()) > 3, "the run")
    site.process.kill()
    site.process.wait()
    eventually(lambda: not processes(), "the end of all it started", 30)


def test_a_run_without_a_verdict_says_so(site: Site, kit: "Kit") -> None:
    kit.edit("microservices/hits/test_lab.py", "import pytest", "import pytest, no_such_module")
    last = site.run("starter")
    assert (last["verdict"], last["checks"]) == ("ERROR", [])
    assert any("no_such_module" in event.get("text", "") for event in site.events(site.stream()))


def test_a_port_that_is_taken_is_said() -> None:
    with listen(0) as taken, pytest.raises(MachineError, match=r"cannot be served on 127\.0\.0\.1:"):
        listen(taken.getsockname()[1])
    with pytest.raises(MachineError):
        listen(99999)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# A\n\n## B", "<h2>A</h2>\n<h3>B</h3>\n"),
        ("<script>x</script>", "<p>&lt;script&gt;x&lt;/script&gt;</p>\n"),
        ("a <b onclick=x>b</b>", "<p>a &lt;b onclick=x&gt;b&lt;/b&gt;</p>\n"),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>\n"),
        ("[the **app**](starter/app.py)", "<p>the <strong>app</strong></p>\n"),
        ("[here](#there)", "<p>here</p>\n"),
        ("[x](https://example.org)", '<p><a href="https://example.org" target="_blank" rel="noopener noreferrer">x</a></p>\n'),
    ],
)
def test_a_labs_text_is_data(text: str, html: str) -> None:
    assert render(text) == html


def test_a_wide_table_scrolls_by_itself() -> None:
    assert render("| a |\n|---|\n| b |").startswith('<div class="scroll"><table>')


def line(n: int, end_s: float, status: int | None = 200) -> str:
    row = {"n": n, "user": 1, "name": "/", "method": "GET", "path": "/", "start_ns": 10**9, "end_ns": int((1 + end_s) * 1e9), "status": status}
    return json.dumps(row) + "\n"


def test_a_history_is_followed_as_it_grows(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    assert follower.read() == []
    assert follower.seconds_at(0) is None
    path = tmp_path / "history.jsonl"
    path.write_text(line(1, 0.1) + json.dumps({"kind": "stall", "at_ns": 1, "stall_ns": 1}) + "\n" + line(2, 0.2, 503)[:20])
    assert follower.read() == [{"n": 0, "t": 0.125, "ok": 4.0, "fail": 0.0, "unknown": 0.0, "p50": 100.0, "p95": 100.0, "p99": 100.0}]
    assert follower.read() == []
    path.write_text(path.read_text()[:-20] + line(2, 0.2, 503) + line(3, 0.6))
    (tmp_path / "history-2.jsonl").write_text(line(4, 0.7, None))
    points = follower.read()
    assert [(p["n"], p["ok"], p["unknown"]) for p in points] == [(0, 4.0, 4.0), (2, 4.0, 4.0)]
    assert follower.seconds_at(2 * 10**9) == 1.0


async def live_run(folder: Path, *command: str, stdin: int = DEVNULL) -> LiveRun:
    """A run whose process is any command."""
    process = await asyncio.create_subprocess_exec(*command, stdin=stdin, stdout=PIPE)
    return LiveRun(read_lab(LABS / "microservices" / "hits"), "starter", folder, process)


def test_the_last_look_at_a_history_awaits_the_one_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both would read on from the same place: what is new would be lost, or counted twice."""

    async def follow() -> bool:
        run = await live_run(tmp_path, "cat", stdin=PIPE)
        loop, stdin = asyncio.get_running_loop(), run._process.stdin
        assert stdin is not None
        alone, has_met = threading.Lock(), threading.Event()

        def read(_: Follower) -> list[dict[str, Any]]:
            if alone.acquire(blocking=False):
                loop.call_soon_threadsafe(stdin.close)  # and so the run ends
                has_met.wait(0.3)
                alone.release()
            else:
                has_met.set()
            return []

        monkeypatch.setattr(Follower, "read", read)
        assert [json.loads(event)["kind"] async for _, event in run.events(0)][-1] == "end"
        return has_met.is_set()

    assert not asyncio.run(follow())


def test_a_line_beyond_all_measure_does_not_end_what_is_told(tmp_path: Path) -> None:
    async def follow() -> list[str]:
        run = await live_run(tmp_path, sys.executable, "-c", "print('x' * 300_000); print('after it')")
        return [json.loads(event).get("text", "") async for _, event in run.events(0)]

    assert "after it" in asyncio.run(follow())
