"""What is true of a service whatever the backend: how the kit asks whether it answers, and what the app may do and know."""

import logging
import socket
import struct
import time
import warnings
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from runner.errors import BUSY_HINT, AppError, LabError, MachineError
from runner.stack import Address, Stack, tail_of

if TYPE_CHECKING:
    from pymysql.connections import Connection
    from pymysql.cursors import DictCursor
    from redis import Redis as RedisClient

APP = "app"
NO_LOG = logging.NullHandler()  # a broker that a fault has stopped is no news on the terminal
ANSWER_WITHIN_S = 10.0
START_WITHIN_S = 60.0
MYSQL_WITHIN_S = 60.0  # longer than any wait for a lock: what takes longer is a server that hangs
LOCK_WITHIN_S = 20  # MySQL would wait a day for the table that somebody has locked
LOCK_WAIT_TIMEOUT = 1205  # its error then
SCHEMA_CHANGED = (1054, 1364)  # a column is gone, or a new one has no default; the app's account can drop and rename no table


class Service(Protocol):
    """One service. Drivers are imported where they are used: a run pays only for those of its lab."""

    def probe(self, address: Address) -> None:
        """Do one real operation as the kit. Raises OSError or the driver's error until the service answers."""

    def prepare(self, address: Address, app_password: str, schema: str) -> None:
        """Make the app's own least-privileged account, and the lab's `schema` (SQL for MySQL, topics for Kafka, else empty)."""

    def app_env(self, address: Address, app_password: str) -> dict[str, str]:
        """What the app learns."""


class Redis:
    """Redis or Valkey, 7 or newer."""

    # Whatever stops, empties, reconfigures or spies on the server is out of reach, inside a script too.
    DENIED = (
        *("-@admin", "-@dangerous"),
        *("-script|flush", "-script|kill"),
        *("-function|flush", "-function|kill", "-function|delete", "-function|restore"),
    )
    # Called dangerous for their cost, or because they tell what the kit does not hide.
    ALLOWED = ("+info", "+keys", "+sort", "+sort_ro", "+role", "+client|list")

    def probe(self, address: Address) -> None:
        """A write and its undoing: PING says nothing about memory or roles."""
        with connect_redis(address) as client:
            client.set("kit:probe", "")
            client.delete("kit:probe")

    def prepare(self, address: Address, app_password: str, schema: str) -> None:  # noqa: ARG002 - Redis has no schema
        """Make the ACL user `app`: every key and channel, no administration."""
        with connect_redis(address) as client:
            rules = ["reset", "on", f">{app_password}", "~*", "&*", "+@all", *self.DENIED, *self.ALLOWED]
            client.execute_command("ACL", "SETUSER", APP, *rules)

    def app_env(self, address: Address, app_password: str) -> dict[str, str]:
        """Return REDIS_URL."""
        return {"REDIS_URL": f"redis://{APP}:{quote(app_password, safe='')}@{address.host}:{address.port}/0"}


class Mysql:
    """MySQL 8 or newer, or MariaDB. The statements below mean the same to both."""

    GRANTS = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, LOCK TABLES, CREATE TEMPORARY TABLES, EXECUTE"

    def probe(self, address: Address) -> None:
        """Run a query."""
        with connect_mysql(address, database=None, within_s=ANSWER_WITHIN_S) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    def prepare(self, address: Address, app_password: str, schema: str) -> None:
        """Make database and account `app`, then run the schema there as the admin. Raises LabError if it is not valid."""
        with connect_mysql(address, database=None) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS {APP}")
            cursor.execute(f"CREATE USER IF NOT EXISTS {APP}@'%%' IDENTIFIED BY %s", (app_password,))
            cursor.execute(f"GRANT {self.GRANTS} ON {APP}.* TO {APP}@'%'")
        if schema.strip():
            run_script(address, schema)

    def app_env(self, address: Address, app_password: str) -> dict[str, str]:
        """Return MYSQL_URL."""
        return {"MYSQL_URL": f"mysql://{APP}:{quote(app_password, safe='')}@{address.host}:{address.port}/{APP}"}


class Kafka:
    """An Apache Kafka broker. It has no accounts: embedded it only hears this machine, in Docker only the run's network."""

    def probe(self, address: Address) -> None:
        """A metadata round trip in which the broker names itself."""
        with connect_kafka(address) as admin:
            if not admin.describe_cluster()["brokers"]:
                raise ConnectionError("the controller knows no broker yet")

    def prepare(self, address: Address, app_password: str, schema: str) -> None:  # noqa: ARG002
        """The lab's topics, a line each: `name partitions [key=value ...]`; returns once every partition has a leader."""
        if topics := dict(map(read_topic, filter(str.strip, schema.splitlines()))):
            with connect_kafka(address) as admin:
                admin.create_topics(topics)
                await_leaders(admin, list(topics))

    def app_env(self, address: Address, app_password: str) -> dict[str, str]:  # noqa: ARG002
        """KAFKA_BOOTSTRAP_SERVERS."""
        return {"KAFKA_BOOTSTRAP_SERVERS": f"{address.host}:{address.port}"}


SERVICES: dict[str, Service] = {"redis": Redis(), "mysql": Mysql(), "kafka": Kafka()}


def await_service(stack: Stack, name: str) -> None:
    """Return when a service that has been started has done a real operation. Raises MachineError with the end of its log."""
    deadline = time.monotonic() + START_WITHIN_S
    while True:
        try:
            SERVICES[name].probe(stack.address(name))
        except Exception as error:  # noqa: BLE001 - each driver raises its own; what it was is told if the time runs out
            problem = error
        else:
            return
        if (code := stack.exit_code(name)) is not None:
            raise MachineError(f"{name} ended as it started (exit code {code})\n{tail_of(stack.log(name))}", BUSY_HINT)
        if time.monotonic() > deadline:
            raise MachineError(f"{name} answered nothing within {START_WITHIN_S:g} s ({problem})\n{tail_of(stack.log(name))}", BUSY_HINT)
        time.sleep(0.01)  # nothing tells us that a server which is not ours listens now


def connect_redis(address: Address) -> "RedisClient":
    """Connect as the kit, without retries: what a check sees is what happened. Raises redis.RedisError on use."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis(
        host=address.host,
        port=address.port,
        username=address.user or None,
        password=address.password,
        decode_responses=True,
        encoding_errors="surrogateescape",  # an app may store any bytes
        socket_timeout=ANSWER_WITHIN_S,
        socket_connect_timeout=ANSWER_WITHIN_S,
        retry=Retry(NoBackoff(), 0),
    )


def connect_mysql(address: Address, database: str | None = APP, within_s: float = MYSQL_WITHIN_S) -> "Connection[DictCursor]":
    """Connect as the kit: rows are dicts, each statement commits, and waits `LOCK_WITHIN_S` for a lock. Raises pymysql.MySQLError."""
    import pymysql
    from pymysql.cursors import DictCursor

    return pymysql.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        database=database,
        autocommit=True,
        cursorclass=DictCursor,
        connect_timeout=int(ANSWER_WITHIN_S),
        read_timeout=within_s,
        init_command=f"SET SESSION lock_wait_timeout = {LOCK_WITHIN_S}, innodb_lock_wait_timeout = {LOCK_WITHIN_S}",
    )


def find_complaint(error: BaseException) -> AppError | None:
    """What the app has done to a server, when a driver's error says so: the kit's own statement could not be served; else None.

    Source: the MySQL 8.4 error reference (1054, 1205, 1364); Redis, EVAL (BUSY) and its clients' handling (maxclients).
    """
    module, number = type(error).__module__, error.args[0] if error.args else None
    if module == "pymysql.err" and number == LOCK_WAIT_TIMEOUT:
        hint = "end every transaction, and give back what LOCK TABLES has taken"
        return AppError(f"the kit waited in vain for what the app has locked in the database: {error}", hint)
    if module == "pymysql.err" and number in SCHEMA_CHANGED:
        hint = "leave the columns of schema.sql as they are; one that you add needs a default (if the solution fails so, the lab is wrong)"
        return AppError(f"the kit could no longer read or write the lab's tables: {error}", hint)
    if module == "redis.exceptions" and str(error).startswith(("BUSY ", "max number of clients")):
        hint = "does a script of the app's never end, or does it never give connections back?"
        return AppError(f"Redis could not serve the kit any more: {error}", hint)
    return None


def run_script(address: Address, script: str) -> None:
    """Run many statements; the server splits them. Raises LabError with what the server says."""
    import pymysql
    from pymysql.constants import CLIENT

    connection = pymysql.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        database=APP,
        autocommit=True,
        read_timeout=MYSQL_WITHIN_S,
        client_flag=CLIENT.MULTI_STATEMENTS,
    )
    number = 1
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(script)
            number = 2
            # An error in a later statement shows only when its result is asked for.
            while cursor.nextset():
                number += 1
    except pymysql.MySQLError as error:
        raise LabError(f"statement {number} of the lab's schema failed: {error}", "it runs in the database `app`") from error


def load_kafka() -> Any:
    """The kafka-python package, without the DeprecationWarning of its import, which would be an error in a strict test run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import kafka
    logging.getLogger("kafka").addHandler(NO_LOG)
    return kafka


def connect_kafka(address: Address) -> Any:
    """A kafka-python admin client, to be closed. Raises OSError at once when no broker answers: it would itself try for 10 s."""
    kafka = load_kafka()  # before the connection: the import then runs while the broker starts

    knock_on_kafka(address)
    return kafka.KafkaAdminClient(bootstrap_servers=f"{address.host}:{address.port}", request_timeout_ms=10_000, bootstrap_timeout_ms=10_000)


def knock_on_kafka(address: Address) -> None:
    """One ApiVersions request (version 0) by hand. Raises OSError: Docker's proxy accepts connections for a broker that does not listen yet.

    Source: the Kafka protocol guide: size, then api_key 18, api_version, correlation_id and a null client_id.
    """
    with socket.create_connection((address.host, address.port), timeout=5) as connection:
        connection.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
        if len(connection.recv(4, socket.MSG_WAITALL)) < 4:
            raise ConnectionResetError("the connection was closed before an answer")


def read_topic(line: str) -> tuple[str, dict[str, Any]]:
    """One line of a Kafka schema, as kafka-python takes it. Raises LabError."""
    name, *rest = line.split()
    try:
        partitions, configs = int(rest[0]), dict(setting.split("=", 1) for setting in rest[1:])
    except (IndexError, ValueError):
        raise LabError(f"this is no topic: {line!r}", hint="write `name partitions [key=value ...]`, as in `orders 6`") from None
    return name, {"num_partitions": partitions, "replication_factor": 1, "configs": configs}


def await_leaders(admin: Any, topics: list[str], timeout_s: float = 10.0) -> None:
    """Return once every partition has a leader. Raises MachineError. Not kafka-python's `wait_for_topics`: it looks every 100 ms."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = admin.describe_topics(topics)
        if all(t["error_code"] == 0 and all(p["error_code"] == 0 and p["leader_id"] >= 0 for p in t["partitions"]) for t in found):
            return
        if time.monotonic() > deadline:
            raise MachineError(f"Kafka chose no leader for every partition of {', '.join(topics)} within {timeout_s:g} s", BUSY_HINT)


def topic_ends(address: Address, topic: str) -> dict[int, int]:
    """The log end offset of each partition. Raises LabError when there is no such topic."""
    kafka = load_kafka()
    with connect_kafka(address) as admin:
        (found,) = admin.describe_topics([topic])
        if found["error_code"]:
            raise LabError(f"there is no Kafka topic {topic!r}", hint=f"there are {', '.join(sorted(admin.list_topics())) or 'none'}")
        partitions = [kafka.TopicPartition(topic, partition["partition_index"]) for partition in found["partitions"]]
        latest = dict.fromkeys(partitions, kafka.OffsetSpec.LATEST)
        return {at.partition: seen.offset for at, seen in sorted(admin.list_partition_offsets(latest).items())}


def group_offsets(address: Address, group: str) -> dict[tuple[str, int], int]:
    """The committed offset of each (topic, partition) for which the group has one: the next record it would read.

    Raises MachineError when the group gets no coordinator: while the broker makes the topic of the offsets, it says that this is broker -1, and
    while it loads that topic, that it is not ready.
    """
    kafka = load_kafka()
    errors = kafka.errors
    not_yet = (errors.UnknownBrokerIdError, errors.CoordinatorLoadInProgressError, errors.CoordinatorNotAvailableError, errors.NotCoordinatorError)
    deadline = time.monotonic() + ANSWER_WITHIN_S
    with connect_kafka(address) as admin:
        while True:
            try:
                offsets = admin.list_group_offsets({group: None})[group]
                break
            except not_yet as error:
                if time.monotonic() > deadline:
                    raise MachineError(f"the group {group} had no coordinator within {ANSWER_WITHIN_S:g} s", BUSY_HINT) from error
            time.sleep(0.05)  # nothing tells when it has one
        return {(at.topic, at.partition): seen.offset for at, seen in sorted(offsets.items()) if seen.offset >= 0}


def topic_records(address: Address, topic: str) -> list[Any]:
    """Every record of a topic, partition by partition, as kafka-python's ConsumerRecord: `partition`, `offset`, `key`, `value`, `headers`.

    Raises LabError when there is no such topic, MachineError when Kafka does not give them all.
    """
    kafka = load_kafka()
    ends = {kafka.TopicPartition(topic, partition): end for partition, end in topic_ends(address, topic).items()}
    records: list[Any] = []
    with kafka.KafkaConsumer(bootstrap_servers=f"{address.host}:{address.port}", enable_auto_commit=False) as consumer:
        consumer.assign(list(ends))
        consumer.seek_to_beginning(*ends)
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while any(consumer.position(at) < end for at, end in ends.items()):
            if time.monotonic() > deadline:
                raise MachineError(f"Kafka did not give all records of {topic} within {ANSWER_WITHIN_S:g} s", BUSY_HINT)
            for found in consumer.poll(timeout_ms=100).values():
                records += found
    return sorted(records, key=lambda record: (record.partition, record.offset))
