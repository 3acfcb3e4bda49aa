"""Wires between real clients and real servers: a chosen statement is late, an acknowledgement is lost, and the truth is in the server."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
import redis

from runner.children import Children
from runner.services import SERVICES, Service, connect_mysql, connect_redis, load_kafka, topic_ends
from runner.stack import Address
from runner.stack.embedded import EmbeddedStack
from runner.stack.embedded_kafka import KafkaServer
from runner.stack.ports import HOST, Ports
from runner.stack.provision import Cache
from runner.wire import LinkPlan, ProxyControl, Wire, proxy_env

kafka = load_kafka()


class Wires:
    """Real servers, and one proxy with a wire to each."""

    def __init__(self, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._ports = Ports()
        self._stack.callback(self._ports.release)
        self._folder = folder
        self.addresses: dict[str, Address] = {}

    def start(self) -> None:
        """MariaDB, Valkey and Kafka; the broker has a second listener, whose advertised address is the proxy's: clients come by no other way."""
        data, logs = self._folder / "data", self._folder / "logs"
        data.mkdir()
        logs.mkdir()
        children, cache = Children(), Cache()
        servers = EmbeddedStack(children, data, logs, cache)
        self._stack.callback(servers.stop)
        servers.start_services(["mysql", "redis"])
        self.addresses = {name: servers.address(name) for name in ("mysql", "redis")}
        self.ports = {name: self._ports.take() for name in ("mysql", "redis", "kafka")}
        behind = self._start_kafka(children, cache)
        links = [LinkPlan(name, self.ports[name], f"{HOST}:{address.port}", name) for name, address in self.addresses.items() if name != "kafka"]
        control_port = self._ports.take()
        env = proxy_env([*links, LinkPlan("kafka", self.ports["kafka"], f"{HOST}:{behind}", "kafka")], control_port, "token")
        process = self._stack.enter_context(subprocess.Popen([sys.executable, "-m", "runner.proxy"], env=env | {"PATH": os.environ["PATH"]}))
        self._stack.callback(process.kill)
        self.control = ProxyControl(HOST, control_port, "token")
        await_that(lambda: self.control.ask("GET", "/links"))
        await_that(lambda: answers(SERVICES["kafka"], self.addresses["kafka"]))

    def _start_kafka(self, children: Children, cache: Cache) -> int:
        """The port of the listener that belongs behind the proxy."""
        folder = self._folder / "data" / "kafka"
        folder.mkdir()
        self.addresses["kafka"] = Address(HOST, self._ports.take())
        behind = self._ports.take()
        server = KafkaServer()
        server.fetch(cache)
        launch = server.launch(cache, folder, self.addresses["kafka"])
        settings = folder / "server.properties"
        text = settings.read_text()
        own = f"APP://{HOST}:{self.addresses['kafka'].port}"
        text = text.replace("APP:PLAINTEXT", "APP:PLAINTEXT,WIRE:PLAINTEXT").replace(own, f"{own},WIRE://{HOST}:{behind}")
        settings.write_text(f"{text}advertised.listeners={own},WIRE://{HOST}:{self.ports['kafka']}\n")
        children.spawn("kafka", launch.argv, env={}, cwd=folder, log=folder / "log")
        return behind

    def stop(self) -> None:
        """End all of it."""
        self._stack.close()

    def wire(self, name: str) -> Wire:
        """The wire to a server."""
        return Wire(name, self.control)

    def through(self, name: str) -> Address:
        """The server's address with the wire's port."""
        address = self.addresses[name]
        return Address(address.host, self.ports[name], address.user, address.password)

    def producer(self, **settings: object) -> Any:
        """A client of the broker that knows it by the wire only."""
        quick = {"reconnect_backoff_ms": 20, "reconnect_backoff_max_ms": 50, "retry_backoff_ms": 20}
        return kafka.KafkaProducer(bootstrap_servers=f"{HOST}:{self.ports['kafka']}", **quick, **settings)


def answers(service: Service, address: Address) -> bool:
    """Whether a server does a real operation."""
    service.probe(address)
    return True


def await_that(what: Callable[[], object], within_s: float = 30.0) -> None:
    """Return once it is true and raises nothing."""
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(OSError, kafka.errors.KafkaError):
            if what():
                return
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def wires(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wires]:
    wires = Wires(tmp_path_factory.mktemp("wires"))
    try:
        wires.start()
        yield wires
    finally:
        wires.stop()


@pytest.fixture
def mysql(wires: Wires) -> Iterator[Wire]:
    """The wire to MariaDB, where two doctors are on call."""
    with connect_mysql(wires.addresses["mysql"], database=None) as connection, connection.cursor() as cursor:
        cursor.execute("DROP DATABASE IF EXISTS app")
        cursor.execute("CREATE DATABASE app")
        cursor.execute("CREATE TABLE app.shifts (doctor INT PRIMARY KEY, on_call INT)")
        cursor.execute("INSERT INTO app.shifts VALUES (1, 1), (2, 1)")
    yield wires.wire("mysql")
    wires.wire("mysql").heal()


def read_rows(wires: Wires, query: str) -> list[dict[str, Any]]:
    """What the server says, asked past the proxy."""
    with connect_mysql(wires.addresses["mysql"]) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


# MariaDB


def test_a_chosen_statement_of_mysql_is_late_and_no_other(wires: Wires, mysql: Wire) -> None:
    fault = mysql.delay(0.2, when=r"^QUERY UPDATE shifts", direction="up")
    took: dict[str, float] = {}
    with connect_mysql(wires.through("mysql")) as connection, connection.cursor() as cursor:
        for statement in ("SELECT on_call FROM shifts", "UPDATE shifts SET on_call = 0 WHERE doctor = 1", "COMMIT"):
            start = time.monotonic()
            cursor.execute(statement)
            took[statement.split()[0]] = time.monotonic() - start
    assert took["UPDATE"] >= 0.2
    assert fault.fired() == 1
    assert fault.events()[1]["message"] == "QUERY UPDATE shifts SET on_call = 0 WHERE doctor = 1"
    assert mysql.tell()["unframed"] == 0


def test_a_prepared_statement_is_known_by_the_text_that_was_prepared(wires: Wires, mysql: Wire) -> None:
    """Drivers of Go and Node send it so. PyMySQL cannot: these are the bytes of COM_STMT_PREPARE and COM_STMT_EXECUTE."""
    fault = mysql.hold(when=r"^EXECUTE UPDATE shifts")
    connection: Any = connect_mysql(wires.through("mysql"))
    with connection:
        connection._execute_command(0x16, "UPDATE shifts SET on_call = 5 WHERE doctor = 2")
        number = connection._read_packet().get_all_data()[1:5]
        execute = threading.Thread(target=lambda: (connection._execute_command(0x17, number + b"\0\1\0\0\0"), connection._read_packet()))
        execute.start()
        await_that(lambda: fault.fired() == 1)
        assert read_rows(wires, "SELECT on_call FROM shifts WHERE doctor = 2") == [{"on_call": 1}]
        fault.heal()
        execute.join(10)
    assert read_rows(wires, "SELECT on_call FROM shifts WHERE doctor = 2") == [{"on_call": 5}]


def test_a_barrier_forces_write_skew(wires: Wires, mysql: Wire) -> None:
    """Both have seen the other on call before either leaves: no luck, no sleep."""
    fault = mysql.hold(when=r"^QUERY UPDATE shifts", times=2)

    def leave(doctor: int) -> None:
        with connect_mysql(wires.through("mysql")) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT SUM(on_call) AS n FROM shifts")
            row = cursor.fetchone()
            assert row is not None
            if row["n"] >= 2:
                cursor.execute("UPDATE shifts SET on_call = 0 WHERE doctor = %s", (doctor,))
            cursor.execute("COMMIT")

    doctors = [threading.Thread(target=leave, args=(doctor,)) for doctor in (1, 2)]
    for doctor in doctors:
        doctor.start()
    await_that(lambda: fault.fired() == 2)
    assert read_rows(wires, "SELECT SUM(on_call) AS n FROM shifts") == [{"n": 2}]
    fault.heal()
    for doctor in doctors:
        doctor.join(10)
    assert read_rows(wires, "SELECT SUM(on_call) AS n FROM shifts") == [{"n": 0}], "nobody is on call"


def test_the_answer_to_a_commit_is_lost_though_it_was_done(wires: Wires, mysql: Wire) -> None:
    fault = mysql.lose_reply(when=r"^QUERY COMMIT")
    connection = connect_mysql(wires.through("mysql"))
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE shifts SET on_call = 7 WHERE doctor = 1")
        with pytest.raises(pymysql.OperationalError, match="Lost connection"):
            cursor.execute("COMMIT")
    assert fault.fired() == 1
    assert read_rows(wires, "SELECT on_call FROM shifts WHERE doctor = 1") == [{"on_call": 7}]


def test_a_commit_that_never_arrives_is_not_done(wires: Wires, mysql: Wire) -> None:
    """The client sees the same as above: it cannot know."""
    fault = mysql.cut(when=r"^QUERY COMMIT", scope="connection")
    connection = connect_mysql(wires.through("mysql"))
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE shifts SET on_call = 7 WHERE doctor = 1")
        with pytest.raises((pymysql.OperationalError, ConnectionResetError)):
            cursor.execute("COMMIT")
    assert fault.fired() == 1
    assert read_rows(wires, "SELECT on_call FROM shifts WHERE doctor = 1") == [{"on_call": 1}]


def test_a_large_result_comes_through(wires: Wires, mysql: Wire) -> None:
    mysql.delay(0.001, when="no statement has this text")
    with connect_mysql(wires.through("mysql")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT REPEAT('x', 3000000) AS text UNION ALL SELECT %s", ("y" * 300_000,))
        assert [len(row["text"]) for row in cursor.fetchall()] == [3_000_000, 300_000]


# Kafka


def test_the_acknowledgement_of_a_produce_is_lost_and_a_retry_without_idempotence_doubles_the_record(wires: Wires) -> None:
    SERVICES["kafka"].prepare(wires.addresses["kafka"], "", "doubled 1")
    wire = wires.wire("kafka")
    with wires.producer(enable_idempotence=False, acks="all", retries=5) as producer:
        producer.send("doubled", b"first").get(timeout=20)
        fault = wire.lose_reply(when="^Produce")
        producer.send("doubled", b"second").get(timeout=20)
        producer.send("doubled", b"third").get(timeout=20)
    assert fault.fired() == 1
    (_, forwarded, lost) = fault.events()
    assert (forwarded["what"], lost["what"]) == ("awaits reply", "lose_reply")
    assert "Produce v" in lost["message"]
    assert topic_ends(wires.addresses["kafka"], "doubled") == {0: 4}, "the broker had stored what the client sent again"
    assert wire.requests("Produce") >= 4


def test_the_same_with_an_idempotent_producer_is_stored_once(wires: Wires) -> None:
    SERVICES["kafka"].prepare(wires.addresses["kafka"], "", "once 1")
    with wires.producer(enable_idempotence=True) as producer:
        producer.send("once", b"first").get(timeout=20)
        fault = wires.wire("kafka").lose_reply(when="^Produce")
        producer.send("once", b"second").get(timeout=20)
    assert fault.fired() == 1
    assert topic_ends(wires.addresses["kafka"], "once") == {0: 2}


def test_a_link_that_is_held_delays_a_producer_and_loses_nothing(wires: Wires) -> None:
    SERVICES["kafka"].prepare(wires.addresses["kafka"], "", "held 1")
    with wires.producer() as producer:
        producer.send("held", b"first").get(timeout=20)
        fault = wires.wire("kafka").hold()
        sent = producer.send("held", b"second")
        with pytest.raises(kafka.errors.KafkaTimeoutError):
            sent.get(timeout=0.3)
        assert topic_ends(wires.addresses["kafka"], "held") == {0: 1}
        assert fault.fired() >= 1
        fault.heal()
        sent.get(timeout=20)
    assert topic_ends(wires.addresses["kafka"], "held") == {0: 2}


# Redis


def test_a_lock_is_taken_though_its_answer_is_lost(wires: Wires) -> None:
    wire = wires.wire("redis")
    with connect_redis(wires.through("redis")) as client:
        fault = wire.lose_reply(when="^SET lock:1 ")
        with client.pipeline(transaction=True) as pipe:
            pipe.set("a", "1")
            pipe.lpush("b", *range(50))
            pipe.lrange("b", 0, -1)
            assert [type(part) for part in pipe.execute()] == [bool, int, list]
        with pytest.raises(redis.ConnectionError):
            client.set("lock:1", "mine", nx=True)
        assert fault.fired() == 1
        assert client.get("lock:1") == "mine", "it was set all the same"
    assert wire.requests("LPUSH") == 1
    assert wire.tell()["unframed"] == 0


def test_a_server_is_cut_off_and_comes_back(wires: Wires) -> None:
    with connect_redis(wires.through("redis")) as client:
        client.set("a", "before")
        fault = wires.wire("redis").cut()
        for _ in range(3):
            with pytest.raises(redis.ConnectionError):
                client.set("a", "during")
        fault.heal()
        assert client.get("a") == "before"
    assert fault.fired() == 1
