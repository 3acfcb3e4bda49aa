"""The app on its stack: what it is told, what it may do, and what happens to it. One run of the fixture lab `bench` for all."""

import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import redis

from runner.app import Replica, family_of, listening_ports
from runner.children import clean_environment
from runner.errors import AppError, Inconclusive, LabError, MachineError
from runner.lab import Submission, read_lab
from runner.run import Run

if TYPE_CHECKING:
    from conftest import Clockwork

FOLDER = Path(__file__).parent / "labs" / "middleware" / "bench"
SEED = 987_654_321


@pytest.fixture
def run(shared: Run) -> Iterator[Run]:
    """The run, which each test leaves as it found it."""
    yield shared
    for name in ("redis", "price-list", *shared.replicas):
        if shared.stack.exit_code(name) is None:
            shared.stack.resume(name)
        else:
            shared.restart(name)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Redis, a peer, two replicas and an extra process are up."""
    folder = tmp_path_factory.mktemp("bench")
    temporary = folder / "t"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        patch.setenv("SECRET_OF_THE_CALLER", "x")
        patch.setenv("LABS_ROOT", str(folder))
        one = Run(read_lab(FOLDER), Submission("solution", FOLDER / "solution", "solution"), folder, SEED)
        try:
            one.start()
            yield one
        finally:
            one.stop()
    assert list(temporary.iterdir()) == []


def env_of(run: Run, replica: int) -> dict[str, str]:
    """The environment of a replica, less what Python and macOS put there themselves."""
    env: dict[str, str] = run.call("GET", "/env", replica=replica).json()
    return {key: value for key, value in env.items() if key not in ("LC_CTYPE", "__CF_USER_TEXT_ENCODING")}


def test_a_start_that_fails_at_once_leaves_nothing(temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise MachineError("no cache here")

    monkeypatch.setattr("runner.stack.provision.Cache", refuse)
    one = Run(read_lab(FOLDER), Submission("solution", FOLDER / "solution", "solution"), tmp_path, SEED)
    with pytest.raises(MachineError, match="no cache here"):
        one.start()
    one.stop()
    assert one.children._guard.returncode is not None, "the guard has ended"


# What it is told


def test_a_replica_is_told_its_contract_and_no_more(run: Run) -> None:
    for number in (1, 2):
        env = env_of(run, number)
        basics = clean_environment(Path(env["HOME"]))
        assert {key: env[key] for key in basics} == basics
        told = {key: value for key, value in env.items() if key not in basics}
        assert set(told) == {"PORT", "REPLICA", "REDIS_URL", "PRICE_LIST_URL", "PYTHONPATH"}
        assert int(told["PORT"]) == run.app.replicas[number - 1].port
        assert told["REPLICA"] == str(number)
        assert told["PRICE_LIST_URL"] == f"http://127.0.0.1:{run.peer('price-list').port}/app-{number}"
        assert re.fullmatch(r"redis://app:[^@]+@127\.0\.0\.1:\d+/0", told["REDIS_URL"])
        assert Path(told["PYTHONPATH"]).name == "shims", "the clock's; only a skewable app has it"


def test_an_extra_process_is_told_the_same_without_a_port(run: Run, eventually: Callable[..., Any]) -> None:
    log = run.stack.log("worker-1")
    eventually(lambda: log.read_text().endswith("}\n"), "the worker has printed its environment")
    text = log.read_text()
    assert '"REDIS_URL"' in text
    assert '"REPLICA": "1"' in text
    assert f'"PRICE_LIST_URL": "http://127.0.0.1:{run.peer("price-list").port}/worker-1"' in text
    assert '"PORT"' not in text


def test_nothing_tells_it_what_is_the_kits(run: Run) -> None:
    peer = run.peer("price-list")
    secrets = {str(SEED), str(peer._control_port), peer._token, run.address("redis").password}
    for name in ("app-1", "app-2", "worker-1"):
        process = psutil.Process(run.stack.pid(name))
        said = " ".join([*process.environ().values(), *process.cmdline()])
        assert not {secret for secret in secrets if secret in said}
        assert not {"SEED", "CONTROL_PORT", "CONTROL_TOKEN", "SECRET_OF_THE_CALLER", "LABS_ROOT"} & set(process.environ())


def test_the_peer_has_seed_and_control(run: Run) -> None:
    env = psutil.Process(run.stack.pid("price-list")).environ()
    assert env["SEED"] == str(SEED)
    assert "SECRET_OF_THE_CALLER" not in env
    assert run.call("GET", "/price/7").json()["seed"] == SEED


def test_it_runs_in_its_submission_with_a_home_of_its_own(run: Run) -> None:
    seen = [run.call("GET", "/whoami", replica=n).json() for n in (1, 2)]
    assert [one["cwd"] for one in seen] == [str(FOLDER / "solution")] * 2
    assert [one["replica"] for one in seen] == ["1", "2"]
    assert [one["pid"] for one in seen] == [run.stack.pid("app-1"), run.stack.pid("app-2")]
    homes = [env_of(run, n)["HOME"] for n in (1, 2)]
    assert len(set(homes)) == 2
    assert all(Path(home).is_dir() and Path(home).is_relative_to(tempfile.gettempdir()) for home in homes)


# What it may do


@pytest.fixture
def app_redis(run: Run) -> Iterator[Any]:
    with redis.Redis.from_url(env_of(run, 1)["REDIS_URL"], decode_responses=True) as client:
        yield client


def test_it_can_use_redis(run: Run, app_redis: Any) -> None:
    assert app_redis.set("price", "3", ex=10)
    assert app_redis.eval("return redis.call('incr', KEYS[1])", 1, "count") == 1
    with run.redis() as ours:
        assert ours.get("price") == "3"


@pytest.mark.parametrize(
    "command",
    ["FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET maxmemory 1", "ACL LIST", "ACL SETUSER app +@all", "SHUTDOWN", "MONITOR"],
)
def test_it_cannot_administer_redis(app_redis: Any, command: str) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        app_redis.execute_command(*command.split())


def test_a_script_cannot_either(app_redis: Any) -> None:
    with pytest.raises(redis.exceptions.ResponseError, match="ACL failure in script"):
        app_redis.eval("return redis.call('flushall')", 0)


# What the scenario asks


def test_the_ledger_says_which_replica_called(run: Run) -> None:
    before = len(run.peer("price-list").calls())
    for number in (2, 1):
        assert run.call("GET", "/price/5", replica=number).json()["price"] == 3
    assert [(c["replica"], c["key"]) for c in run.peer("price-list").calls()[before:]] == [("app-2", "5"), ("app-1", "5")]


def test_a_name_that_is_not_there(run: Run) -> None:
    with pytest.raises(LabError, match="no peer is called 'catalog'") as caught:
        run.peer("catalog")
    assert caught.value.hint == "lab.toml names price-list"
    with pytest.raises(LabError, match="nothing called 'app-3' runs here") as caught:
        run.pause("app-3")
    assert caught.value.hint == "there are app-1, app-2, price-list, redis, worker-1"


def test_a_killed_replica_is_no_crash_and_can_be_restarted(run: Run) -> None:
    port, pid = run.app.replicas[1].port, run.stack.pid("app-2")
    run.kill("app-2")
    assert run.stack.exit_code("app-2") == -signal.SIGKILL
    assert not psutil.pid_exists(pid)
    run.app.check_alive()
    with pytest.raises(AppError, match="app-2 gave no answer to GET /env: "):
        run.call("GET", "/env", replica=2)
    run.restart("app-2")
    assert run.call("GET", "/whoami", replica=2).json()["pid"] == run.stack.pid("app-2") != pid
    assert run.app.replicas[1].port == port
    assert [event["what"] for event in run.events][-2:] == ["killed app-2", "restarted app-2"]


def test_cpu_time(run: Run, eventually: Callable[..., Any]) -> None:
    before = run.cpu_s("app-2")
    eventually(lambda: run.call("GET", "/whoami", replica=2).status == 200 and run.cpu_s("app-2") > before > 0, "answers that cost something")
    run.kill("app-2")
    with pytest.raises(LabError, match="app-2 has ended, and its CPU time with it"):
        run.cpu_s("app-2")


def test_a_replica_that_was_asked_to_quit_has_not_crashed(run: Run) -> None:
    assert run.threads("app-2") >= 1
    said = run.quit("app-2")
    assert said == run.stack.log("app-2").read_text()
    assert run.stack.exit_code("app-2") is not None
    run.app.check_alive()
    assert run.events[-1]["what"] == "quit app-2"


def test_a_replica_that_ends_by_itself_is_a_crash(run: Run, eventually: Callable[..., Any]) -> None:
    with pytest.raises(AppError):
        run.call("GET", "/die/9", replica=2)
    eventually(lambda: run.stack.exit_code("app-2") is not None, "its end is known")
    with pytest.raises(AppError, match=r"app-2 died while it served \(exit code 9\)\n(  \| .*\n)+  log: .*/app-2.log"):
        run.app.check_alive()
    with pytest.raises(AppError, match="app-2 died while it served"):
        run.until(lambda: False, at_most_s=20)
    run.restart("app-2")
    run.app.check_alive()


def test_a_restart_of_what_runs_is_a_kill_and_a_start(run: Run) -> None:
    pid = run.stack.pid("app-1")
    run.restart("app-1")
    assert run.stack.pid("app-1") != pid
    assert not psutil.pid_exists(pid)
    assert run.call("GET", "/").status == 200


def test_a_paused_replica_stands_still_and_goes_on(run: Run) -> None:
    run.pause("app-1")
    assert psutil.Process(run.stack.pid("app-1")).status() == psutil.STATUS_STOPPED, "when pause() returns"
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(run.call("GET", "/").status))
    caller.start()
    caller.join(0.2)
    assert answers == [], "its connections are taken, and nobody answers"
    run.app.check_alive()
    run.resume("app-1")
    caller.join(10)
    assert answers == [200]


def test_a_paused_redis_times_a_client_out(run: Run) -> None:
    url = env_of(run, 1)["REDIS_URL"]
    run.pause("redis")
    try:
        with redis.Redis.from_url(url, socket_timeout=0.2, retry=None) as client, pytest.raises(redis.exceptions.TimeoutError):
            client.ping()
    finally:
        run.resume("redis")
    with redis.Redis.from_url(url) as client:
        assert client.ping()


def test_a_restarted_redis_lets_the_app_in_again(run: Run) -> None:
    """With the address, and the account, that the app knows from its start."""
    url = env_of(run, 1)["REDIS_URL"]
    run.kill("redis")
    run.restart("redis")
    with redis.Redis.from_url(url) as client:
        assert client.ping()


def test_a_restarted_peer_answers_and_keeps_its_ledger(run: Run) -> None:
    peer = run.peer("price-list")
    before = len(peer.calls())
    run.call("GET", "/price/old")
    assert len(peer.calls()) == before + 1
    run.restart("price-list")
    assert run.call("GET", "/price/new").json()["price"] == 3, "it serves again when restart() returns"
    assert [call["key"] for call in peer.calls()[before:]] == ["old", "new"]
    run.call("GET", "/price/newer")
    assert [call["key"] for call in peer.calls()[before:]] == ["old", "new", "newer"]


def test_a_readiness_request_without_an_answer_leaves_nothing_open(
    run: Run, serve: "Callable[[], Clockwork]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Python warns of it, which is an error here as under plain pytest."""
    clockwork = serve()
    answer = clockwork.answer

    def hang_once(handler: BaseHTTPRequestHandler) -> None:
        handler.path = "/" if clockwork.visits else "/?hang=1"
        answer(handler)

    monkeypatch.setattr(clockwork, "answer", hang_once)
    run.app.await_replica(Replica("app-1", 1, clockwork.server.server_port), "GET /healthz")
    assert len(clockwork.visits) == 2


def test_a_restarted_extra_process_is_awaited_when_it_serves(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it never does."""
    worker = run.app._table.extra["worker"].model_copy(update={"ready": "GET /healthz"})
    monkeypatch.setattr(run.app, "_table", run.app._table.model_copy(update={"extra": {"worker": worker}, "ready_within_s": 0.1}))
    monkeypatch.setattr(run.app, "extras", [Replica("worker-1", 1, run.stack.free_port())])
    with pytest.raises(AppError, match=r"worker-1 did not answer GET /healthz within 0\.1 s"):
        run.restart("worker-1")


def test_a_peer_that_answers_nonsense_is_asked_again_and_costs_no_run(
    run: Run, serve: "Callable[[], Clockwork]", monkeypatch: pytest.MonkeyPatch
) -> None:
    clockwork = serve()
    no_http, no_json = b"what?\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"
    answers = [no_http, no_json, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", no_http, no_json]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(answers.pop(0))
        handler.close_connection = True

    monkeypatch.setattr(clockwork, "answer", answer)
    monkeypatch.setattr(run.peer("price-list"), "_control_port", clockwork.server.server_port)
    run.app.await_peers()
    assert len(answers) == 2
    run.save_ledgers()
    run.save_ledgers()
    assert answers == []


def test_the_clock_of_one_replica_can_be_shifted(run: Run) -> None:
    def walls() -> list[float]:
        return [run.call("GET", "/clock", replica=n).json()["wall"] for n in (1, 2)]

    assert run.skew("app-2", 3600) is True
    one, other = walls()
    assert 3590 < other - one < 3610
    assert run.skew("app-2", 0) is True
    one, other = walls()
    assert abs(other - one) < 10
    assert [event["what"] for event in run.events][-2:] == ["clock of app-2 shifted by 3600 s", "clock of app-2 shifted by 0 s"]


def test_a_state_that_does_not_come(run: Run) -> None:
    assert run.until(lambda: True, at_most_s=0.1) is True
    assert run.until(lambda: False, at_most_s=0.1) is False


def test_a_load_spares_the_dead_and_finds_them_again(run: Run) -> None:
    with run.load(users=4) as load:
        pass
    assert {record.replica for record in load.history} == {1, 2}
    run.kill("app-1")
    with run.load(users=4) as load:
        pass
    assert {record.replica for record in load.history} == {2}
    assert load.history.ok_share() == 1.0
    run.restart("app-1")
    with run.load(users=4) as load:
        pass
    assert {record.replica for record in load.history} == {1, 2}
    assert sorted(path.name for path in run.folder.glob("history*")) == ["history-2.jsonl", "history-3.jsonl", "history.jsonl"]
    assert run.loads[-1] is load


def test_the_addresses_for_a_person(run: Run) -> None:
    assert re.fullmatch(
        r"""  app-1        http://127\.0\.0\.1:\d+
  app-2        http://127\.0\.0\.1:\d+
  price-list   http://127\.0\.0\.1:\d+
  REDIS_URL    redis://app:\S+""",
        run.addresses(),
    )


# What a check asks


def test_require_makes_a_run_inconclusive(run: Run) -> None:
    run.require(1, "fine")
    with pytest.raises(Inconclusive, match="too few hits"):
        run.require([], "too few hits")


class Strained:
    """As much of a load as tells how slow the machine was."""

    def __init__(self, stalled_s: float, cpu_wait_share: float) -> None:
        self.history = self
        self.longest_stall_s = stalled_s
        self.cpu_wait_share = cpu_wait_share


@pytest.mark.parametrize(
    ("stalled_s", "waited", "doubts"),
    [
        (0.9, 0.39, []),
        (1.5, 0.5, ["the machine stood still for 1.5 s"]),
        (0.1, 0.5, ["a replica was ready to run and had no CPU for 50% of the time"]),
    ],
)
def test_a_slow_machine_casts_a_doubt(run: Run, stalled_s: float, waited: float, doubts: list[str]) -> None:
    load: Any = Strained(stalled_s, waited)
    run.require_calm(load)
    assert [doubt.what for doubt in run.doubts] == doubts
    run.doubts.clear()


def test_a_slow_machine_explains_no_more_than_its_share_of_a_time(run: Run) -> None:
    load: Any = Strained(0.5, 0.5)
    run.require_calm(load)
    with pytest.raises(AssertionError):
        run.at_most(6.4, 3, "6.4 s", is_time=True)
    assert run.doubts, "3 s of work take 6 s with half a CPU, and half a second of standing still comes on top"
    with pytest.raises(AssertionError):
        run.at_most(6.6, 3, "6.6 s")
    assert run.doubts, "what is no time does not grow with it"
    with pytest.raises(AssertionError):
        run.at_most(6.6, 3, "6.6 s", is_time=True)
    assert not run.doubts
    run.comparisons.clear()


def test_comparisons_are_kept_with_their_limits(run: Run) -> None:
    run.comparisons.clear()
    run.at_most(1, 2, "", "below")
    run.at_least(2, 2, "", "just")
    with pytest.raises(AssertionError, match=r"^3 is much$"):
        run.at_most(3, 2, "3 is much", "above")
    assert [(c.what, c.value, c.limit, c.is_upper, c.holds) for c in run.comparisons] == [
        ("below", 1, 2, True, True),
        ("just", 2, 2, False, True),
        ("above", 3, 2, True, False),
    ]
    run.comparisons.clear()


def test_ledgers_are_saved(run: Run) -> None:
    run.call("GET", "/price/saved")
    run.save_ledgers()
    assert '"saved"' in (run.folder / "price-list-calls.json").read_text()


def test_listening_ports_are_those_of_the_family(run: Run) -> None:
    assert listening_ports(run.stack.pid("app-1")) == {run.app.replicas[0].port}
    peer = run.peer("price-list")
    assert listening_ports(run.stack.pid("price-list")) == {peer.port, peer._control_port}
    assert listening_ports(os.getpid() + 10**6) == set()


def test_of_a_process_of_another_machine_nothing_is_known() -> None:
    assert family_of(0) == []
    assert listening_ports(0) == set()
