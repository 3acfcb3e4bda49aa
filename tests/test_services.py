"""What the app's own accounts can and cannot do, on the real servers."""

import contextlib
import dataclasses
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql
import pytest
import redis
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from runner.errors import LabError
from runner.services import SERVICES, connect_mysql, connect_redis, find_complaint
from runner.stack import Address
from runner.stack.embedded_mysql import MysqlServer
from runner.stack.embedded_redis import RedisServer
from runner.stack.provision import Cache
from runner.stack.server import EmbeddedServer

PASSWORD = "app-secret/@:"
SCHEMA = """
CREATE TABLE seats (id INT PRIMARY KEY, taken_by VARCHAR(20)); -- a comment; with a semicolon
INSERT INTO seats VALUES (1, NULL), (2, 'a;b');
"""


@contextlib.contextmanager
def running(name: str, server: EmbeddedServer, folder: Path, user: str = "") -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = Address("127.0.0.1", free.getsockname()[1], user, "admin-secret")
    cache = Cache()
    server.fetch(cache)
    launch = server.launch(cache, folder, address)
    process = subprocess.Popen(launch.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(redis.ConnectionError, pymysql.OperationalError):
                SERVICES[name].probe(address)
                break
            assert process.poll() is None
        yield address
    finally:
        process.kill()
        process.wait()


# Redis


@pytest.fixture(scope="module")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with running("redis", RedisServer(), tmp_path_factory.mktemp("redis")) as address:
        SERVICES["redis"].prepare(address, PASSWORD, "")
        yield address


@pytest.fixture
def app(redis_address: Address) -> Iterator[Any]:
    """The app's client, made from nothing but what the app is told (Any: redis-py types few of its methods)."""
    url = SERVICES["redis"].app_env(redis_address, PASSWORD)["REDIS_URL"]
    with redis.Redis.from_url(url, decode_responses=True) as client:
        yield client


def test_the_probe_leaves_nothing(redis_address: Address) -> None:
    SERVICES["redis"].probe(redis_address)
    with connect_redis(redis_address) as kit:
        assert kit.keys("kit:*") == []


def test_the_kit_reads_text(redis_address: Address, app: Any) -> None:
    app.set("text", "grün")
    with connect_redis(redis_address) as kit:
        assert kit.get("text") == "grün"


def test_the_kit_reads_and_names_keys_that_are_no_text(redis_address: Address, app: Any) -> None:
    app.set(b"key-\xff", "")
    with connect_redis(redis_address) as kit:
        assert kit.keys("key-*") == ["key-\udcff"]
        assert kit.delete("key-\udcff") == 1


ALLOWED = [
    "SET key value PX 1000 NX",
    "GET key",
    "INCR counter",
    "HSET hash field value",
    "ZADD sorted 1 member",
    "XADD stream * field value",
    "XGROUP CREATE stream group $",
    "PUBLISH channel message",
    "EXPIRE key 10",
    "SCAN 0",
    "KEYS *",
    "SORT list",
    "EVAL return(redis.call('incr',KEYS[1])) 1 counter",
    "SCRIPT LOAD return(1)",
    "SCRIPT EXISTS 0000000000000000000000000000000000000000",
    "FUNCTION LIST",
    "WAIT 0 1",
    "CLIENT SETNAME app",
    "CLIENT SETINFO LIB-NAME lib",
    "CLIENT ID",
    "CLIENT INFO",
    "CLIENT LIST",
    "CLIENT TRACKING off",
    "INFO",
    "TIME",
    "DBSIZE",
    "MEMORY USAGE key",
    "OBJECT ENCODING key",
    "SELECT 1",
    "SELECT 0",
    "HELLO 3",
    "COMMAND",
    "ACL WHOAMI",
    "ROLE",
]


@pytest.mark.parametrize("command", ALLOWED)
def test_the_app_may_use_what_libraries_use(app: Any, command: str) -> None:
    app.execute_command(*command.split(" "))


DENIED = [
    "FLUSHALL",
    "FLUSHDB",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "FUNCTION FLUSH",
    "FUNCTION DELETE lib",
    "FUNCTION KILL",
    "CONFIG GET *",
    "CONFIG SET maxmemory 1",
    "CONFIG RESETSTAT",
    "CLIENT KILL ID 1",
    "CLIENT PAUSE 1000",
    "CLIENT UNPAUSE",
    "CLIENT NO-EVICT on",
    "CLIENT UNBLOCK 1",
    "ACL LIST",
    "ACL GETUSER app",
    "ACL SETUSER app on",
    "DEBUG SLEEP 1",
    "SHUTDOWN NOSAVE",
    "MONITOR",
    "SAVE",
    "BGSAVE",
    "SWAPDB 0 1",
    "REPLICAOF NO ONE",
    "MODULE LIST",
    "SLOWLOG RESET",
    "LATENCY RESET",
    "MIGRATE 127.0.0.1 1 key 0 1",
    "EVAL return(redis.call('flushall')) 0",
]


@pytest.mark.parametrize("command", DENIED)
def test_the_app_may_not_administer(app: Any, command: str) -> None:
    # Inside a script the refusal comes as the script's error; DEBUG is refused to all, before anyone's rights are looked at.
    with pytest.raises(redis.ResponseError, match=r"no permissions|ACL failure in script|DEBUG command not allowed"):
        app.execute_command(*command.split(" "))


def test_redis_py_locks_pipelines_and_scripts_work(app: Any) -> None:
    with app.lock("lock", timeout=5, blocking_timeout=1):
        pass
    with app.pipeline(transaction=True) as pipeline:
        pipeline.watch("watched")
        pipeline.multi()
        pipeline.incr("watched")
        assert pipeline.execute() == [1]
    assert app.register_script("return ARGV[1]")(args=["x"]) == "x"
    with app.pubsub() as subscription:
        subscription.subscribe("channel")


def test_nobody_is_the_app_without_its_password(redis_address: Address, app: Any) -> None:
    stranger = dataclasses.replace(redis_address, user="app", password="wrong")
    with connect_redis(stranger) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_a_redis_that_the_app_keeps_busy_is_its_doing(redis_address: Address) -> None:
    with connect_redis(redis_address) as kit:
        limit = kit.config_get("busy-reply-threshold")["busy-reply-threshold"]
        kit.config_set("busy-reply-threshold", 50)
        endless = threading.Thread(target=run_for_ever, args=(redis_address,))
        endless.start()
        try:
            with pytest.raises(redis.RedisError) as caught:
                ask_for_ever(kit)
        finally:
            kit.script_kill()
            endless.join()
            kit.config_set("busy-reply-threshold", limit)
    assert "Redis could not serve the kit any more: " in str(find_complaint(caught.value))


def ask_for_ever(client: "redis.Redis") -> None:
    """A question, until one is not answered."""
    while True:
        client.get("anything")


def run_for_ever(address: Address) -> None:
    """A script that ends only when it is killed."""
    with connect_redis(address) as client, pytest.raises(redis.ResponseError, match="killed"):
        client.eval("while true do end", 0)


# MySQL


@pytest.fixture(scope="module")
def mysql_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with running("mysql", MysqlServer(), tmp_path_factory.mktemp("mysql"), "root") as address:
        SERVICES["mysql"].prepare(address, PASSWORD, SCHEMA)
        yield address


def connect_app(address: Address) -> "Connection[Cursor]":
    """Connect as the app does, from nothing but what it is told."""
    url = urlsplit(SERVICES["mysql"].app_env(address, PASSWORD)["MYSQL_URL"])
    assert (url.scheme, url.path) == ("mysql", "/app")
    return pymysql.connect(host=url.hostname, port=url.port or 0, user=url.username, password=unquote(url.password or ""), database="app")


@pytest.fixture
def connection(mysql_address: Address) -> Iterator["Connection[Cursor]"]:
    with connect_app(mysql_address) as opened:
        yield opened


def test_an_odd_password_is_quoted_in_the_url(mysql_address: Address) -> None:
    assert "app:app-secret%2F%40%3A@127.0.0.1" in SERVICES["mysql"].app_env(mysql_address, PASSWORD)["MYSQL_URL"]


def test_the_schema_is_there_and_the_kit_reads_rows_as_dicts(mysql_address: Address) -> None:
    with connect_mysql(mysql_address) as kit, kit.cursor() as cursor:
        cursor.execute("SELECT * FROM seats ORDER BY id")
        assert list(cursor.fetchall()) == [{"id": 1, "taken_by": None}, {"id": 2, "taken_by": "a;b"}]


@pytest.mark.parametrize(
    "statements",
    [
        ["SELECT * FROM seats FOR UPDATE"],
        ["UPDATE seats SET taken_by = 'me' WHERE id = 1"],
        ["CREATE TABLE IF NOT EXISTS mine (n INT, KEY (n))", "INSERT INTO mine VALUES (1)", "DELETE FROM mine"],
        ["ALTER TABLE seats COMMENT = 'changed'", "CREATE INDEX by_taken ON seats (taken_by)"],
        ["CREATE TEMPORARY TABLE scratch (n INT)", "DROP TEMPORARY TABLE scratch"],
        ["LOCK TABLES seats WRITE", "UNLOCK TABLES"],
        ["SELECT GET_LOCK('a', 1)", "SELECT RELEASE_LOCK('a')"],
        ["SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET SESSION innodb_lock_wait_timeout = 1"],
    ],
)
def test_the_app_may_use_its_database(connection: "Connection[Cursor]", statements: list[str]) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE seats",
        "TRUNCATE TABLE seats",
        "DROP DATABASE app",
        "CREATE DATABASE another",
        "SELECT * FROM mysql.user",
        "SET GLOBAL max_connections = 1",
        "FLUSH STATUS",
        "CREATE USER x",
        "GRANT ALL ON app.* TO app",
        "SHOW ENGINE INNODB STATUS",
        "SELECT LOAD_FILE('/etc/passwd') INTO OUTFILE '/tmp/labs-never'",
        "SHUTDOWN",
    ],
)
def test_the_app_may_not_administer_the_database(connection: "Connection[Cursor]", statement: str) -> None:
    with connection.cursor() as cursor, pytest.raises(pymysql.MySQLError, match=r"denied"):
        cursor.execute(statement)


def test_the_kit_does_not_wait_for_ever_for_a_table_that_the_app_has_locked(
    mysql_address: Address, connection: "Connection[Cursor]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.services.LOCK_WITHIN_S", 1)
    with connection.cursor() as locking, connect_mysql(mysql_address) as kit, kit.cursor() as cursor:
        locking.execute("LOCK TABLES seats WRITE")
        with pytest.raises(pymysql.OperationalError) as caught:
            cursor.execute("SELECT * FROM seats")
        assert "waited in vain" in str(find_complaint(caught.value))
        locking.execute("UNLOCK TABLES")
        assert cursor.execute("SELECT * FROM seats") == 2


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO bare (id) VALUES (1)", "SELECT gone FROM bare"],
)
def test_tables_that_the_app_has_changed_are_its_doing(mysql_address: Address, connection: "Connection[Cursor]", statement: str) -> None:
    with connection.cursor() as changing, connect_mysql(mysql_address) as kit, kit.cursor() as cursor:
        changing.execute("CREATE TABLE IF NOT EXISTS bare (id INT, needed INT NOT NULL)")
        with pytest.raises(pymysql.MySQLError) as caught:
            cursor.execute(statement)
        assert "no longer read or write the lab's tables" in str(find_complaint(caught.value))


def test_a_server_that_takes_connections_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.services.ANSWER_WITHIN_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(pymysql.OperationalError, match="timed out"):
        SERVICES["mysql"].probe(Address("127.0.0.1", silent.getsockname()[1], "root"))


def test_preparing_twice_changes_nothing(mysql_address: Address) -> None:
    SERVICES["mysql"].prepare(mysql_address, PASSWORD, "")
    with connect_app(mysql_address):
        pass


@pytest.mark.parametrize(("schema", "number"), [("CREATE TABEL x (n INT)", 1), ("SELECT 1; SELECT 2; SELECT * FROM nowhere;", 3)])
def test_a_broken_schema_is_the_authors_fault_and_names_the_statement(mysql_address: Address, schema: str, number: int) -> None:
    with pytest.raises(LabError, match=f"statement {number} of the lab's schema failed: "):
        SERVICES["mysql"].prepare(mysql_address, PASSWORD, schema)
