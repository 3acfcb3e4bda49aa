"""What is true of a service on every backend: when it answers, how the app's own account and the lab's schema come to be, what the app is told."""

import re
from typing import Any, Protocol

from runner.errors import LabError
from runner.stack import Address


class Service(Protocol):
    """One kind of server, as a client sees it."""

    def probe(self, address: Address) -> None:
        """One real operation as the kit; raises whatever the driver raises until it works."""

    def prepare(self, address: Address, app_password: str, schema: str) -> None:
        """Make the app's own account, and the lab's schema."""

    def app_env(self, address: Address, app_password: str) -> dict[str, str]:
        """The environment variables that tell the app."""


class Redis:
    """A Redis server; the app's user can use all data commands, but cannot flush, configure, or see others' commands."""

    def probe(self, address: Address) -> None:
        """SET and DEL."""
        client = connect_redis(address)
        client.set("kit:probe", 1)
        client.delete("kit:probe")
        client.close()

    def prepare(self, address: Address, app_password: str, schema: str) -> None:  # noqa: ARG002 - Redis has none
        """The ACL user `app` (Redis docs, ACL)."""
        rules = ["on", f">{app_password}", "~*", "&*", "+@all", "-@admin", "-@dangerous", "+info", "-script|flush", "-function|flush"]
        client = connect_redis(address)
        client.execute_command("ACL", "SETUSER", "app", *rules)
        client.close()

    def app_env(self, address: Address, app_password: str) -> dict[str, str]:
        """REDIS_URL."""
        return {"REDIS_URL": f"redis://app:{app_password}@{address.host}:{address.port}/0"}


class Mysql:
    """A MySQL or MariaDB server; the app's account owns the tables of database `app`, and nothing else."""

    def probe(self, address: Address) -> None:
        """A query."""
        connection = connect_mysql(address, database=None)
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM information_schema.schemata")
        connection.close()

    def prepare(self, address: Address, app_password: str, schema: str) -> None:
        """Database `app`, the account, and the schema (SQL statements)."""
        rights = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, LOCK TABLES, CREATE TEMPORARY TABLES, EXECUTE"
        connection = connect_mysql(address, database=None)
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE app CHARACTER SET utf8mb4")
            cursor.execute(f"CREATE USER 'app'@'%' IDENTIFIED BY '{app_password}'")
            cursor.execute(f"GRANT {rights} ON app.* TO 'app'@'%'")
            cursor.execute("USE app")
            for statement in filter(None, (part.strip() for part in re.split(r";\s*(?:\n|$)", schema))):
                cursor.execute(statement)
        connection.close()

    def app_env(self, address: Address, app_password: str) -> dict[str, str]:
        """MYSQL_URL."""
        return {"MYSQL_URL": f"mysql://app:{app_password}@{address.host}:{address.port}/app"}


class Kafka:
    """An Apache Kafka broker."""

    def probe(self, address: Address) -> None:
        """A metadata round trip."""
        admin = connect_kafka_admin(address)
        admin.list_topics()
        admin.close()

    def prepare(self, address: Address, app_password: str, schema: str) -> None:  # noqa: ARG002 - the broker has no accounts
        """The lab's topics, a line each: `name partitions [key=value ...]`; returns when every partition has a leader."""
        from kafka.admin import NewTopic  # noqa: PLC0415

        topics = []
        for line in schema.splitlines():
            name, partitions, *settings = line.split()
            topics.append(NewTopic(name, int(partitions), 1, topic_configs=dict(s.split("=", 1) for s in settings)))
        if not topics:
            raise LabError("lab.toml names kafka but no topic", hint='[kafka] topics = ["orders 6"]')
        admin = connect_kafka_admin(address)
        admin.create_topics(topics)
        admin.close()
        for topic in topics:
            topic_ends(address, topic.name)  # answers once there are leaders

    def app_env(self, address: Address, app_password: str) -> dict[str, str]:  # noqa: ARG002
        """KAFKA_BOOTSTRAP_SERVERS."""
        return {"KAFKA_BOOTSTRAP_SERVERS": f"{address.host}:{address.port}"}


SERVICES: dict[str, Service] = {"redis": Redis(), "mysql": Mysql(), "kafka": Kafka()}


def connect_redis(address: Address) -> Any:
    """A redis-py client of the kit's own account."""
    import redis  # noqa: PLC0415 - only runs with Redis pay for it

    return redis.Redis(address.host, address.port, password=address.password, decode_responses=True, socket_timeout=10)


def connect_mysql(address: Address, database: str | None = "app") -> Any:
    """A PyMySQL connection of the kit's own account: autocommit, rows as dicts."""
    import pymysql.cursors  # noqa: PLC0415

    return pymysql.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        database=database,
        autocommit=True,
        connect_timeout=10,
        read_timeout=30,
        cursorclass=pymysql.cursors.DictCursor,
    )


def connect_kafka_admin(address: Address) -> Any:
    """A kafka-python admin client."""
    from kafka.admin import KafkaAdminClient  # noqa: PLC0415

    return KafkaAdminClient(bootstrap_servers=f"{address.host}:{address.port}", request_timeout_ms=10_000)


def topic_ends(address: Address, topic: str) -> dict[int, int]:
    """The log end offset of each partition of a topic."""
    from kafka import KafkaConsumer, TopicPartition  # noqa: PLC0415

    consumer = KafkaConsumer(bootstrap_servers=f"{address.host}:{address.port}")
    try:
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        return {tp.partition: offset for tp, offset in consumer.end_offsets(partitions).items()}
    finally:
        consumer.close()


def group_offsets(address: Address, group: str, topic: str) -> dict[int, int]:
    """The committed offset of each partition of a topic, for those that have one."""
    admin = connect_kafka_admin(address)
    try:
        offsets = admin.list_group_offsets({group: None})[group]
        return {tp.partition: meta.offset for tp, meta in offsets.items() if tp.topic == topic and meta.offset >= 0}
    finally:
        admin.close()
