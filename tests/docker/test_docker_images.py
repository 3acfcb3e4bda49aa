"""The images of the Docker backend on a real engine: what they do, and what they do not. `labs images` has made them."""

import contextlib
import dataclasses
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
import redis

from runner import image_base, images
from runner.errors import MachineError
from runner.image_base import check_local, find_official, why_not_official
from runner.image_build import build
from runner.image_maker import make
from runner.images import BASE_LABEL, IMAGES, VERSION_LABEL, missing_images, tag_of
from runner.recipe import LOCK, RECIPES, locked_for
from runner.services import SERVICES, connect_mysql, connect_redis, load_kafka
from runner.stack import Address
from runner.stack.embedded_kafka import free_port
from runner.stack.embedded_mysql import COMMON, MYSQL
from runner.stack.engine import connect_engine

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

LABEL = "backend-labs.test"
UP_WITHIN_S = 30.0
SECRET = "admin-secret"
NOWHERE = "127.0.0.1:1/backend-labs:1"

Start = Callable[..., "Container"]


@pytest.fixture(scope="module")
def client() -> Iterator["docker.DockerClient"]:
    with contextlib.closing(connect_engine(60)) as connected:
        yield connected


@pytest.fixture
def start(client: "docker.DockerClient") -> Iterator[Start]:
    """Start a container of an image; all are removed in the end, and none has left a volume."""
    started: list[Container] = []
    before = {volume.id for volume in client.volumes.list()}

    def start_one(name: str, command: Any = None, *, inside: int = 0, outside: int | None = None, **options: Any) -> "Container":
        if inside:
            options["ports"] = {f"{inside}/tcp": ("127.0.0.1", outside)}
        container: Container = client.containers.run(tag_of(name), command, detach=True, labels=[LABEL], **options)
        started.append(container)
        return container

    yield start_one
    for container in started:
        container.remove(force=True)
    assert {volume.id for volume in client.volumes.list()} <= before


def address_of(container: "Container", inside: int, user: str = "") -> Address:
    """Where the engine has published a port, as soon as it has."""
    deadline = time.monotonic() + UP_WITHIN_S
    while True:
        container.reload()
        if published := container.ports.get(f"{inside}/tcp"):
            return Address("127.0.0.1", int(published[0]["HostPort"]), user, SECRET)
        assert time.monotonic() < deadline, container.logs().decode()
        time.sleep(0.01)


def await_service(name: str, address: Address, container: "Container") -> None:
    """Return when the service does one real operation."""
    deadline = time.monotonic() + UP_WITHIN_S
    while True:
        try:
            SERVICES[name].probe(address)
        except Exception:  # noqa: BLE001 - whatever the driver raises until there is a server
            assert time.monotonic() < deadline, container.logs().decode()
            time.sleep(0.02)
            continue
        return


def output_of(client: "docker.DockerClient", name: str, command: list[str], **options: Any) -> str:
    """What a program prints in a container of its own."""
    printed: bytes = client.containers.run(tag_of(name), command[1:], entrypoint=command[0], remove=True, **options)
    return printed.decode().strip()


# What holds for all


def test_none_is_missing(client: "docker.DockerClient") -> None:
    assert missing_images(client, IMAGES) == []


def test_one_of_another_digest_is_missing(client: "docker.DockerClient", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "tag_of", lambda name: tag_of(name) if name != "kafka" else "backend-labs/kafka:000000000000")
    assert missing_images(client, IMAGES) == ["kafka"]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_tells_what_it_is(client: "docker.DockerClient", name: str) -> None:
    labels = client.images.get(tag_of(name)).labels
    assert labels[BASE_LABEL] in {"local", "official"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels[VERSION_LABEL])


@pytest.mark.parametrize("name", IMAGES)
def test_a_container_is_not_root_and_leaves_no_volume(client: "docker.DockerClient", name: str) -> None:
    config = client.images.get(tag_of(name)).attrs["Config"]
    assert config["User"] not in {"", "root", "0"}
    assert not config.get("Volumes")


# Redis


@pytest.mark.parametrize("command", [["redis-server", "--requirepass", SECRET], ["--requirepass", SECRET]])
def test_redis_takes_its_options(start: Start, command: list[str]) -> None:
    container = start("redis", command, inside=6379)
    address = address_of(container, 6379)
    await_service("redis", address, container)
    with connect_redis(address) as connection:
        assert int(connection.info("server")["redis_version"].partition(".")[0]) >= 8
    with connect_redis(dataclasses.replace(address, password="wrong")) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


# MySQL


@pytest.fixture
def mysql(start: Start) -> tuple["Container", Address]:
    container = start("mysql", [*COMMON, *MYSQL, "--max-connections=77"], inside=3306, environment={"MYSQL_ROOT_PASSWORD": SECRET})
    address = address_of(container, 3306, "root")
    await_service("mysql", address, container)
    return container, address


def ask(address: Address, query: str) -> list[Any]:
    """The rows, as tuples."""
    with connect_mysql(address, database=None) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return [tuple(row.values()) for row in cursor.fetchall()]


def test_mysql_has_one_root_with_the_given_password(mysql: tuple["Container", Address]) -> None:
    _, address = mysql
    assert ask(address, "SELECT host FROM mysql.user WHERE user = 'root'") == [("%",)]
    with pytest.raises(pymysql.OperationalError, match="Access denied"):
        ask(dataclasses.replace(address, password=""), "SELECT 1")


def test_mysql_obeys_the_kits_options_and_those_given(mysql: tuple["Container", Address]) -> None:
    _, address = mysql
    assert ask(address, "SELECT @@max_connections, @@innodb_flush_log_at_trx_commit, @@skip_name_resolve") == [(77, 2, 1)]


def test_mysql_keeps_its_data_over_a_kill(mysql: tuple["Container", Address]) -> None:
    container, address = mysql
    ask(address, "CREATE DATABASE kept")
    container.kill()
    container.wait()
    container.start()
    address = address_of(container, 3306, "root")
    await_service("mysql", address, container)
    assert ("kept",) in ask(address, "SHOW DATABASES")


@pytest.mark.parametrize(("password", "said"), [("it's", "holds a quote"), ("", "is not set")])
def test_mysql_does_not_start_with_a_password_that_it_cannot_take(start: Start, password: str, said: str) -> None:
    container = start("mysql", environment={"MYSQL_ROOT_PASSWORD": password})
    assert container.wait()["StatusCode"] == 2
    assert said in container.logs().decode()


# Kafka


@pytest.fixture
def kafka(start: Start) -> tuple["Container", Address]:
    """A broker that cannot itself reach what it advertises, as behind a gate."""
    port = free_port("127.0.0.1")
    container = start("kafka", inside=9092, outside=port, environment={"KAFKA_ADVERTISED": f"127.0.0.1:{port}"})
    address = Address("127.0.0.1", port)
    await_service("kafka", address, container)
    return container, address


def test_kafka_commits_transactions_whatever_it_advertises(kafka: tuple["Container", Address]) -> None:
    _, address = kafka
    SERVICES["kafka"].prepare(address, "", "orders 2")
    place, package = f"{address.host}:{address.port}", load_kafka()
    with package.KafkaProducer(bootstrap_servers=place, transactional_id="test") as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send("orders", b"1")
        producer.commit_transaction()
    options = {"group_id": "test", "auto_offset_reset": "earliest", "isolation_level": "read_committed", "consumer_timeout_ms": 20_000}
    with package.KafkaConsumer("orders", bootstrap_servers=place, **options) as consumer:
        assert next(consumer).value == b"1"


def test_kafka_keeps_its_data_over_a_kill(kafka: tuple["Container", Address]) -> None:
    container, address = kafka
    SERVICES["kafka"].prepare(address, "", "kept 1")
    container.kill()
    container.wait()
    container.start()
    await_service("kafka", address, container)
    with load_kafka().KafkaAdminClient(bootstrap_servers=f"{address.host}:{address.port}") as admin:
        assert "kept" in admin.list_topics()


def test_two_brokers_are_two_clusters(start: Start) -> None:
    ids = set()
    for _ in range(2):
        port = free_port("127.0.0.1")
        options = {"KAFKA_LISTEN_PORT": str(port), "KAFKA_ADVERTISED": f"127.0.0.1:{port}"}
        container = start("kafka", inside=port, outside=port, environment=options)
        await_service("kafka", Address("127.0.0.1", port), container)
        with load_kafka().KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}") as admin:
            ids.add(admin.describe_cluster()["cluster_id"])
    assert len(ids) == 2


def test_java_takes_the_cache_that_was_trained(client: "docker.DockerClient") -> None:
    java = ["/opt/kafka/jdk/bin/java", "@/opt/kafka/java-options", "-XX:AOTMode=on", "-XX:AOTCache=/opt/kafka/kafka.aot"]
    assert output_of(client, "kafka", [*java, "kafka.Kafka", "--version"]).startswith(client.images.get(tag_of("kafka")).labels[VERSION_LABEL])


# The runtime

LOCKED_UP = {"read_only": True, "tmpfs": {"/tmp": ""}, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"], "network_mode": "none"}  # noqa: S108


def test_the_runtime_holds_the_locked_packages(client: "docker.DockerClient") -> None:
    script = "import importlib.metadata as m; print('\\n'.join(f'{d.name}=={d.version}' for d in m.distributions()))"
    there = {line.lower().replace("_", "-").replace(".", "-") for line in output_of(client, "runtime", ["python", "-c", script]).splitlines()}
    locked = {line.partition(" ")[0].lower().replace(".", "-") for line in locked_for(LOCK.read_text(), "x86_64")}
    assert locked <= there


def test_the_runtime_runs_locked_up(client: "docker.DockerClient") -> None:
    script = "import os, sys; print(os.getuid(), os.getgid(), os.environ['HOME'], *sys.version_info[:2])"
    assert output_of(client, "runtime", ["python", "-c", script], **LOCKED_UP) == "10001 10001 /tmp 3 13"
    assert output_of(client, "runtime", ["uvicorn", "--version"], **LOCKED_UP).startswith("Running uvicorn")


def test_the_runtime_compiles_nothing_at_start(client: "docker.DockerClient") -> None:
    script = (
        "import sys, fastapi, uvicorn, redis, pymysql\n"
        "print([m.__spec__.name for m in sys.modules.values() if getattr(m, '__spec__', None) and m.__spec__.has_location"
        " and m.__spec__.origin.endswith('.py') and not __import__('os').path.exists(m.__spec__.cached)])"
    )
    assert output_of(client, "runtime", ["python", "-c", script], **LOCKED_UP) == "[]"


def test_a_gate_can_be_made_of_the_runtime(client: "docker.DockerClient") -> None:
    script = "nft add table inet gate && nft list tables && ip -brief address show lo"
    told = output_of(client, "runtime", ["sh", "-c", script], user="root", cap_drop=["ALL"], cap_add=["NET_ADMIN"])
    assert "table inet gate" in told
    assert "127.0.0.1/8" in told


# The making


def test_the_volumes_of_an_official_image_are_taken_off_and_owners_stay(client: "docker.DockerClient") -> None:
    stand_in, flat = f"backend-labs-test/{secrets.token_hex(4)}:1", ""
    text = f"FROM {tag_of('redis')}\nUSER root\nRUN mkdir /data && chown redis /data\nVOLUME /data\nENV MADE_OF='two words'\n"
    build(["--tag", stand_in, "-"], "test-official", print, text=text)
    try:
        flat = find_official(client, dataclasses.replace(RECIPES["redis"], official=stand_in), print).reference
        config = client.images.get(flat).attrs["Config"]
        assert not config.get("Volumes")
        assert "MADE_OF=two words" in config["Env"]
        assert client.containers.run(flat, ["stat", "-c", "%U", "/data"], remove=True).decode().strip() == "redis"
    finally:
        for reference in filter(None, (flat, stand_in)):
            client.images.remove(reference)


def test_a_registry_out_of_reach_is_told_at_once() -> None:
    began = time.monotonic()
    assert why_not_official([NOWHERE]).startswith(f"{NOWHERE} cannot be pulled: ")
    assert time.monotonic() - began < image_base.REGISTRY_WITHIN_S + 2


def test_what_the_engine_has_needs_no_registry() -> None:
    assert why_not_official([tag_of("redis")]) == ""


def test_official_images_are_not_silently_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "redis", dataclasses.replace(RECIPES["redis"], official=NOWHERE))
    with pytest.raises(MachineError, match="cannot be pulled") as raised:
        make(["redis"], is_local=False, say=print)
    assert "labs images --local" in raised.value.hint


def test_without_root_it_says_who_could_make_them(client: "docker.DockerClient", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MachineError, match="x: only root can make a Debian") as raised:
        check_local(client, "x")
    assert "sudo" in raised.value.hint


def test_without_debootstrap_it_says_how_to_get_it(
    client: "docker.DockerClient", monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
    with pytest.raises(MachineError, match="there is no debootstrap") as raised:
        check_local(client, "x")
    assert "infra/engine.sh debootstrap" in raised.value.hint
