"""What the integration tests share: a root with the fixture labs, loads on a server that keeps time, and the proof that nothing is left."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import psutil
import pytest

from runner.children import Children
from runner.generator import LoadProcess
from runner.images import IMAGES, missing_images
from runner.load import Load
from runner.stack.engine import connect_engine
from runner.stack.sweep import RUN_LABEL, things_of

if TYPE_CHECKING:
    import docker
    from playwright.sync_api import Browser, Locator

collect_ignore_glob = ["labs/*"]  # they are what tests run, no tests of the kit

HERE = Path(__file__).parent
GONE_WITHIN_S = 15.0
DONE_WITHIN_S = 60.0


def eventually(state: Callable[[], Any], what: str, within_s: float = GONE_WITHIN_S) -> Any:
    """Wait until `state()` is true and return it; what it waits for lives in other processes."""
    deadline = time.monotonic() + within_s
    while not (value := state()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.01)
    return value


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process but this one that has the folder in its environment, its arguments, or as its place."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = [*process.environ().values(), *process.cmdline(), process.cwd()]
            if process.pid != os.getpid() and any(str(folder) in word for word in words):
                found.append(process)
    return found


def assert_nothing_left(folder: Path, temporary: Path) -> None:
    """No process knows `folder`, and nothing is in the folder for temporary files. Ends what is left, so that no later test meets it."""
    try:
        eventually(lambda: not processes_of(folder), f"the end of every process of {folder}")
    except AssertionError:
        left, shown = processes_of(folder), list[str]()
        for process in left:
            with contextlib.suppress(psutil.Error):  # it may end at any moment
                shown.append(f"{process.pid} {process.cmdline()}")
                process.kill()
        psutil.wait_procs(left, GONE_WITHIN_S)
        pytest.fail(f"left behind: {shown}")
    assert list(temporary.iterdir()) == []


@pytest.fixture(name="eventually")
def wait_for_it() -> Callable[..., Any]:
    """`eventually(state, what, within_s)`."""
    return eventually


@pytest.fixture
def processes(tmp_path: Path) -> Callable[[], list[psutil.Process]]:
    """The processes of this test."""
    return lambda: processes_of(tmp_path)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test's temporary files go. In the end it is empty, and no process of the test is alive."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert_nothing_left(tmp_path, folder)


@pytest.fixture
def unused_ports() -> Callable[[int], list[int]]:
    """Ports that nobody listens on now."""

    def find(count: int) -> list[int]:
        with contextlib.ExitStack() as stack:
            return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]

    return find


# The kit's command on the fixture labs


def heed_interrupts() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored, and children inherit that: these tests are about Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Kit:
    """A checkout with copies of the fixture labs, and the real `labs` on it."""

    root: Path
    temporary: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def labs(self, *arguments: str, within_s: float = DONE_WITHIN_S, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `labs` to its end."""
        return self.python("-m", "runner", *arguments, within_s=within_s, **environment)

    def python(self, *arguments: str, within_s: float = DONE_WITHIN_S, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run this Python to its end, in the root."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `labs` in a session of its own, its output and errors in one pipe."""
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=heed_interrupts,  # noqa: PLW1509 - a signal disposition, no more
        )
        self.started.append(process)
        return process

    def submission(self, name: str) -> str:
        """One of the apps that do what no submission should, as an argument."""
        return f"--submission={self.root / 'labs' / 'apps' / name}"

    def lab(self, name: str) -> Path:
        """The folder of a lab."""
        return next(self.root.glob(f"labs/*/{name}"))

    def edit(self, file: str, old: str, new: str) -> None:
        """Change the copy of a file of a lab."""
        path = self.root / "labs" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def run_folder(self) -> Path:
        """The folder of the one run there has been."""
        (folder,) = (self.root / ".labs" / "runs").iterdir()
        return folder


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    """The kit on its fixture labs. In the end nothing of it is left: no process, no temporary file."""
    root, folder = tmp_path / "root", tmp_path / "t"
    folder.mkdir()
    shutil.copytree(HERE / "labs", root / "labs", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = ["--import-mode=importlib"]\nfilterwarnings = ["error"]\n')
    # Not CI's own: `labs verify` would write its table into the summary of the very job that runs this test.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "GITHUB_"))}
    environment |= {"LABS_BACKEND": "embedded", "LABS_ROOT": str(root), "PYTHONPATH": str(HERE.parent), "TMPDIR": str(folder)}
    one = Kit(root, folder, environment)
    yield one
    for process in one.started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert_nothing_left(tmp_path, folder)


# Loads on a server that keeps time


@dataclass
class Visit:
    """A request as the server saw it; the other times are right before head and body left, 0 until then."""

    path: str
    query: dict[str, str]
    arrived_ns: int
    headed_ns: int = 0
    sent_ns: int = 0


class Clockwork:
    """A real HTTP server that delays head and body of its answers as it is asked, and knows when each left.

    `/x?head=0.3&body=0.2&size=9&cut=4&status=500&hang=1`: seconds before the head, seconds between head and body, the body's bytes, how many
    of them are really sent, the status, and whether it never answers.
    """

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.ended = threading.Event()
        clockwork = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                clockwork.answer(self)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                clockwork.answer(self)

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = False
            block_on_close = False
            request_queue_size = 128

            def handle_error(self, *_: object) -> None: ...

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        arrived_ns = time.monotonic_ns()
        parts = urlsplit(handler.path)
        visit = Visit(parts.path, dict(parse_qsl(parts.query)), arrived_ns)
        self.visits.append(visit)
        if "hang" in visit.query:
            self.ended.wait()
            handler.close_connection = True
            return
        body = b'"' + b"x" * (int(visit.query.get("size", "9")) - 2) + b'"'
        self.ended.wait(float(visit.query.get("head", "0")))
        handler.send_response(int(visit.query.get("status", "200")))
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Content-Type", "application/json")
        visit.headed_ns = time.monotonic_ns()  # before the write: the client may have read it before that returns
        handler.end_headers()
        self.ended.wait(float(visit.query.get("body", "0")))
        visit.sent_ns = time.monotonic_ns()
        handler.wfile.write(body[: int(visit.query.get("cut", len(body)))])
        handler.close_connection = "cut" in visit.query

    def close(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[], Clockwork]]:
    """Start a server that keeps time; all end with the module."""
    with contextlib.ExitStack() as stack:

        def start() -> Clockwork:
            server = Clockwork()
            stack.callback(server.close)
            return server

        yield start


class Loads:
    """Loads of locustfiles written in a test, by one guard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children = Children()
        self.numbers = itertools.count(1)
        self.idle = self.start_worker()

    def start_worker(self) -> LoadProcess:
        """Locust takes its time to be imported: the worker of the next load is started ahead, as a run does."""
        number = next(self.numbers)
        return LoadProcess(self.children, f"load-{number}", self.folder / f"load-{number}.log")

    def close(self) -> None:
        """End them all."""
        self.idle.listener.close()
        self.children.close()

    def __call__(
        self,
        locustfile: str,
        targets: Sequence[str],
        *,
        users: int = 1,
        until: Callable[[], object] | None = None,
        at_most_s: float = 20.0,
        is_endless: bool = False,
        check_app: Callable[[], None] = lambda: None,
        plan: Mapping[str, object] | None = None,
        down: Sequence[int] = (),
    ) -> Load:
        """A load, to be used as a context manager."""
        worker, self.idle = self.idle, self.start_worker()
        path = self.folder / f"locustfile_{worker.name}.py"
        path.write_text(textwrap.dedent(locustfile))
        start = {
            "locustfile": str(path),
            "history": str(self.folder / f"history-{worker.name}.jsonl"),
            "targets": list(targets),
            "down": list(down),
            "users": users,
            "plan": dict(plan or {}),
        }
        return Load(worker, start, until, at_most_s, is_endless, Driven(check_app))


@dataclass(frozen=True)
class Driven:
    """An app that a load drives: alive as long as `check` says nothing."""

    check: Callable[[], None]

    def check_alive(self) -> None:
        self.check()

    def cpu_waits_ns(self) -> dict[int, int]:
        return {}


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loads]:
    """Start loads. In the end nothing of them is left."""
    folder = tmp_path_factory.mktemp("loads")
    temporary = folder / "t"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", str(temporary))
        started = Loads(folder)
        yield started
        started.close()
    assert_nothing_left(folder, temporary)


# A browser, for tests/browser

INKED = """canvas => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const found = new Set();
    for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 200) found.add(pixels[i] << 16 | pixels[i + 1] << 8 | pixels[i + 2]);
    return found.size;
}"""


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """The system's Chromium."""
    from playwright.sync_api import sync_playwright  # only `make test-browser` installs it

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert path, "no Chromium is on PATH: install it (Debian, Ubuntu: apt install chromium)"
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start as root, as in CI; the only pages it sees are ours.
        one = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield one
        one.close()


@pytest.fixture(scope="session")
def shots() -> Path:
    """Where screenshots go, for a person to look at."""
    folder = Path(os.environ.get("LABS_SHOTS") or HERE.parent / ".labs" / "shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def colours_of() -> "Callable[[Locator], int]":
    """How many colours a canvas has: one or two when nothing is drawn on it."""
    return lambda canvas: canvas.evaluate(INKED)


# The Docker backend, for tests/docker


@pytest.fixture(scope="session")
def engine() -> "Iterator[docker.DockerClient]":
    """The engine. Without one these tests fail: that is what they are about."""
    client = connect_engine()
    yield client
    client.close()


@pytest.fixture(scope="session")
def images(engine: "docker.DockerClient") -> None:
    """The images are there."""
    missing = missing_images(engine, IMAGES)
    assert not missing, f"no image for {missing}: run `make images` first"


def things_in(engine: "docker.DockerClient") -> set[str]:
    """Every container and network of a run, and every volume, since those that an image declares bear no label."""
    labelled = things_of(engine, {"label": RUN_LABEL})
    volumes = ((kind, thing) for kind, thing in things_of(engine, {}) if kind == "volume")
    return {f"{kind} {thing.get('Name') or thing['Names'][0]}" for kind, thing in (*labelled, *volumes)}


@pytest.fixture
def untouched(engine: "docker.DockerClient") -> Iterator[None]:
    """In the end the engine has what it had in the beginning."""
    before = things_in(engine)
    yield
    assert things_in(engine) == before


@pytest.fixture
def in_docker(images: None, untouched: None, kit: Kit) -> Kit:
    """The kit on its fixture labs, in Docker."""
    kit.environment["LABS_BACKEND"] = "docker"
    return kit
