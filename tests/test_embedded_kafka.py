"""A real broker of the embedded backend: what it promises to a lab, and how it is prepared."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.children import Children, Process, clean_environment
from runner.errors import LabError, MachineError
from runner.services import SERVICES, connect_kafka, group_offsets, load_kafka, read_topic, topic_ends, topic_records
from runner.stack import Address, embedded_kafka
from runner.stack.embedded import EmbeddedStack
from runner.stack.embedded_kafka import KafkaServer, Programs, find_made, find_programs
from runner.stack.provision import Cache

kafka = load_kafka()
MEMBER = """
import sys, kafka
consumer = kafka.KafkaConsumer(
    "orders", bootstrap_servers=sys.argv[1], group_id="fulfil", auto_offset_reset="earliest", enable_auto_commit=False,
    session_timeout_ms=2000, heartbeat_interval_ms=400,
)
seen = None
while True:
    consumer.poll(timeout_ms=50)
    if (now := len(consumer.assignment())) != seen:
        print(seen := now, flush=True)
"""


class Broker:
    """One embedded broker, as a run has it."""

    def __init__(self, folder: Path) -> None:
        self.data, self.logs = folder / "data", folder / "logs"
        self.data.mkdir(parents=True)
        self.logs.mkdir()
        self.children = Children()
        self.stack = EmbeddedStack(self.children, self.data, self.logs, Cache())
        self.stack.start_services(["kafka"])

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self.stack.address("kafka")

    @property
    def place(self) -> str:
        """The same, as the app is told."""
        return SERVICES["kafka"].app_env(self.address, "")["KAFKA_BOOTSTRAP_SERVERS"]

    def make_topics(self, schema: str) -> None:
        """As a run does."""
        SERVICES["kafka"].prepare(self.address, "", schema)

    def produce(self, topic: str, count: int) -> list[tuple[int, int]]:
        """Partition and offset of each record."""
        with kafka.KafkaProducer(bootstrap_servers=self.place, reconnect_backoff_max_ms=200) as producer:
            sent = [producer.send(topic, b"%d" % n, key=b"%d" % n).get(timeout=20) for n in range(count)]
        return [(record.partition, record.offset) for record in sent]

    def spawn_member(self, name: str) -> Process:
        """A consumer of the group `fulfil`, which prints how many partitions it has."""
        argv = [sys.executable, "-c", MEMBER, self.place]
        return self.children.spawn(name, argv, env=clean_environment(self.data), cwd=self.data, log=self.logs / f"{name}.log")


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Broker]:
    broker = Broker(folder)
    try:
        yield broker
    finally:
        broker.stack.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with started(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with started(tmp_path) as broker:
        yield broker


def await_that(what: Callable[[], object], within_s: float = 30.0) -> float:
    """Seconds until it was so."""
    start = time.monotonic()
    while not what():
        assert time.monotonic() < start + within_s, f"not within {within_s:g} s"
        time.sleep(0.01)
    return time.monotonic() - start


def last_line(log: Path) -> str:
    return (log.read_text().splitlines() or [""])[-1]


def test_every_partition_takes_a_record_once_the_topic_is_prepared(shared: Broker) -> None:
    shared.make_topics("ready 6\nready-too 1 retention.ms=60000\n")
    with kafka.KafkaProducer(bootstrap_servers=shared.place, retries=0, enable_idempotence=False) as producer:
        for partition in range(6):
            producer.send("ready", b"x", partition=partition).get(timeout=10)
    assert topic_ends(shared.address, "ready") == dict.fromkeys(range(6), 1)
    assert topic_ends(shared.address, "ready-too") == {0: 0}


def test_what_is_produced_is_consumed_and_committed(shared: Broker) -> None:
    shared.make_topics("read 3")
    sent = shared.produce("read", 30)
    with kafka.KafkaConsumer(
        "read", bootstrap_servers=shared.place, group_id="readers", auto_offset_reset="earliest", consumer_timeout_ms=10_000
    ) as consumer:
        read = [(record.partition, record.offset) for _, record in zip(range(30), consumer, strict=False)]
        consumer.commit()
    assert sorted(read) == sorted(sent)
    ends = {("read", partition): end for partition, end in topic_ends(shared.address, "read").items()}
    assert group_offsets(shared.address, "readers") == {key: end for key, end in ends.items() if end}


def test_all_records_of_a_topic_can_be_read_as_they_are(shared: Broker) -> None:
    shared.make_topics("kept 3\nkept-none 2")
    value = b"\xff\x00 no text"
    with kafka.KafkaProducer(bootstrap_servers=shared.place) as producer:
        for partition in (2, 0, 2):
            producer.send("kept", value, key=b"k", headers=[("reason", b"why")], partition=partition).get(timeout=10)
    records = topic_records(shared.address, "kept")
    assert [(record.partition, record.offset) for record in records] == [(0, 0), (2, 0), (2, 1)]
    assert {(record.key, record.value, tuple(record.headers)) for record in records} == {(b"k", value, (("reason", b"why"),))}
    assert topic_records(shared.address, "kept-none") == []


def test_the_first_generation_of_a_group_knows_its_topic(shared: Broker) -> None:
    shared.make_topics("known 3")
    assigned: list[int] = []

    class Ears(kafka.ConsumerRebalanceListener):  # type: ignore[name-defined,misc]
        def on_partitions_revoked(self, revoked: object) -> None:
            pass

        def on_partitions_assigned(self, given: set[object]) -> None:
            assigned.append(len(given))

    for group in ("the broker's first", "one that finds its coordinator at once"):
        assigned.clear()
        with kafka.KafkaConsumer(bootstrap_servers=shared.place, group_id=group, enable_auto_commit=False) as consumer:
            consumer.subscribe(["known"], listener=Ears())
            await_that(lambda: consumer.poll(timeout_ms=50) or assigned)
        assert assigned == [3]  # else kafka-python joins again when it learns of the topic, and may never end that


def test_a_group_that_never_committed_has_no_offsets(shared: Broker) -> None:
    assert group_offsets(shared.address, "nobody") == {}


def test_no_topic_comes_to_be_by_itself_or_goes(shared: Broker) -> None:
    shared.make_topics("stays 1")
    with pytest.raises(LabError, match="no Kafka topic 'unheard-of'") as caught:
        topic_ends(shared.address, "unheard-of")
    assert "stays" in caught.value.hint
    producer = kafka.KafkaProducer(bootstrap_servers=shared.place, max_block_ms=500)
    with producer, pytest.raises(kafka.errors.KafkaTimeoutError, match="metadata"):
        producer.send("unheard-of", b"x")
    with connect_kafka(shared.address) as admin, pytest.raises(kafka.errors.TopicDeletionDisabledError):
        admin.delete_topics(["stays"])


@pytest.mark.parametrize("line", ["orders", "orders six", "orders 6 retention.ms"])
def test_a_line_that_is_no_topic_is_the_authors_error(line: str) -> None:
    with pytest.raises(LabError, match=re.escape(repr(line))):
        read_topic(line)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_it_listens_on_loopback_only_and_writes_only_below_its_folder(shared: Broker) -> None:
    pid = shared.stack.pid("kafka")
    files = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            files.append(str(fd.readlink()))
    sockets = {file[8:-1] for file in files if file.startswith("socket:[")}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[9] in sockets]
    assert len(listening) == 2
    assert all(local[6:8] == "7F" for local in listening)  # 127.x.x.x in little-endian hex
    own = (str(shared.data), str(shared.logs), str(Cache().root), "/dev/", "/proc/")
    assert [file for file in files if file.startswith("/") and not file.startswith(own)] == []
    assert not list(Path("/tmp").glob(f"hsperfdata_*/{pid}"))  # noqa: S108 - where a JVM would put it


def test_the_partitions_of_a_killed_consumer_are_taken_over_within_its_session(broker: Broker) -> None:
    broker.make_topics("orders 6")
    first, second = broker.spawn_member("first"), broker.spawn_member("second")
    await_that(lambda: last_line(first.log) == last_line(second.log) == "3")
    first.kill()
    await_that(lambda: last_line(second.log) == "6", within_s=20)  # its session is 2 s, where a consumer that says nothing has 45


def test_a_killed_broker_comes_back_with_its_records_offsets_and_port(broker: Broker) -> None:
    broker.make_topics("orders 6")
    broker.produce("orders", 60)
    with kafka.KafkaConsumer("orders", bootstrap_servers=broker.place, group_id="g", auto_offset_reset="earliest") as consumer:
        await_that(lambda: consumer.poll(timeout_ms=50))
        consumer.commit()
    before = topic_ends(broker.address, "orders"), group_offsets(broker.address, "g"), broker.place
    broker.stack.kill("kafka")
    assert broker.stack.exit_code("kafka") == -signal.SIGKILL
    broker.stack.restart("kafka")
    assert (topic_ends(broker.address, "orders"), group_offsets(broker.address, "g"), broker.place) == before
    broker.produce("orders", 6)
    assert sum(topic_ends(broker.address, "orders").values()) == 66


def test_two_brokers_side_by_side_never_meet(shared: Broker, broker: Broker) -> None:
    broker.make_topics("only-here 1")
    with pytest.raises(LabError):
        topic_ends(shared.address, "only-here")
    own = {"data/meta.properties": ("cluster.id", "directory.id"), "server.properties": ("controller.quorum.voters", "listeners")}
    for file, keys in own.items():
        texts = [(one.data / "kafka" / file).read_text() for one in (shared, broker)]
        for key in keys:
            ours, theirs = (re.findall(rf"^{key}=(.+)$", text, re.MULTILINE) for text in texts)
            assert (len(ours), len(theirs)) == (1, 1)
            assert ours != theirs


@pytest.fixture(scope="module")
def programs() -> Programs:
    KafkaServer().fetch(Cache())
    return find_programs(Cache())


def test_the_jvm_takes_the_aot_cache_as_it_is(programs: Programs, tmp_path: Path) -> None:
    aot = find_made(Cache(), programs) / "kafka.aot"
    assert aot.is_file()
    # AOTMode=on: the JVM refuses to start if the cache does not fit the options and the classpath.
    argv = programs.command("kafka.Kafka", tmp_path, ["--version"], [f"-XX:AOTCache={aot}", "-XX:AOTMode=on"])
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, env={})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("4.")


def test_without_an_aot_cache_it_goes_on_and_says_so(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise MachineError("no broker today")

    monkeypatch.setattr(embedded_kafka, "await_answer", fail)
    embedded_kafka.make(programs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["template"]
    assert re.search(r"start 2 s slower.*no broker today", capsys.readouterr().err)


def test_a_restart_uses_what_is_there(programs: Programs, tmp_path: Path) -> None:
    server, cache, address = KafkaServer(), Cache(), Address("127.0.0.1", 1)
    first = server.launch(cache, tmp_path, address)
    (tmp_path / "data" / "a-record").touch()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = server.launch(cache, tmp_path, address)
    assert first == again
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_ids_are_what_kafka_takes() -> None:
    ids = {embedded_kafka.new_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert not [one for one in ids if one.startswith("-") or len(one) != 22]


def test_nothing_is_fetched_twice(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sync", lambda: pytest.fail("something was made anew"))
    KafkaServer().fetch(Cache())
