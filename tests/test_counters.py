"""The servers' own counters: what the page makes of them, and that the real servers give them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.children import Children
from runner.counters import FILE, Sampler, rates, read_counters, write_counters
from runner.services import SERVICES, connect_mysql, connect_redis, load_kafka
from runner.stack.embedded import EmbeddedStack
from runner.stack.provision import Cache


def test_a_total_becomes_a_rate_that_knows_nothing_of_gaps() -> None:
    assert rates([0.0, 0.5, 1.0, 1.5, 4.0, 4.5], [10, 20, 20, 5, 50, None]) == [None, 20.0, 0.0, None, None, None]
    assert rates([], []) == []


def test_the_charts_show_what_was_ever_more_than_nothing(tmp_path: Path) -> None:
    samples = [
        {"at_ns": 1_000_000_000, "commands": 100, "keys found": 0, "clients": 3, "clients that wait": 0},
        {"at_ns": 1_500_000_000, "commands": 150, "keys found": 0, "clients": 4, "clients that wait": 0},
    ]
    (tmp_path / FILE).write_text(json.dumps({"redis": samples, "mysql": []}))
    assert read_counters(tmp_path, start_ns=500_000_000) == [
        {"title": "redis, a second", "t": [0.5, 1.0], "series": {"commands": [None, 100.0]}},
        {"title": "redis, at a time", "t": [0.5, 1.0], "series": {"clients": [3, 4]}},
    ]


def test_without_counters_there_is_no_chart(tmp_path: Path) -> None:
    write_counters(tmp_path, [])
    assert not (tmp_path / FILE).exists()
    assert read_counters(tmp_path, 0) == []


def use_redis(stack: EmbeddedStack) -> None:
    with connect_redis(stack.address("redis")) as client:
        for _ in range(50):
            client.get("nothing")


def use_mysql(stack: EmbeddedStack) -> None:
    with connect_mysql(stack.address("mysql"), database=None) as connection, connection.cursor() as cursor:
        for _ in range(50):
            cursor.execute("COMMIT")


def use_kafka(stack: EmbeddedStack) -> None:
    kafka = load_kafka()
    address = stack.address("kafka")
    place = f"{address.host}:{address.port}"
    SERVICES["kafka"].prepare(address, "", "orders 2")
    with kafka.KafkaProducer(bootstrap_servers=place) as producer:
        for _ in range(50):
            producer.send("orders", b"value").get(timeout=30)
    with kafka.KafkaConsumer("orders", bootstrap_servers=place, group_id="workers", auto_offset_reset="earliest", max_poll_records=10) as consumer:
        assert next(consumer)
        consumer.commit()


@pytest.mark.parametrize(
    ("service", "use", "expected"),
    [
        ("redis", use_redis, lambda now: now["keys not found"] >= 50 and now["commands"] >= 50),
        ("mysql", use_mysql, lambda now: now["commits"] >= 50 and now["deadlocks"] == 0 and now["threads that run"] >= 1),
        ("kafka", use_kafka, lambda now: now["records"] == 50 and now.get("lag of workers") == 49),
    ],
)
def test_a_server_tells_what_it_has_counted(
    tmp_path: Path, eventually: Callable[..., Any], service: str, use: Callable[[EmbeddedStack], None], expected: Callable[[dict[str, float]], bool]
) -> None:
    children = Children()
    (tmp_path / "data").mkdir()
    stack = EmbeddedStack(children, tmp_path / "data", tmp_path, Cache())
    try:
        stack.choose_addresses([service], {})
        stack.start_services([service])
        sampler = Sampler(service, lambda: stack.address(service))
        use(stack)
        eventually(lambda: sampler.samples and expected(sampler.samples[-1]), f"what {service} counted")
        if service == "redis":
            stack.pause(service)
        begin = time.monotonic()
        write_counters(tmp_path, [sampler])
        assert time.monotonic() - begin < 2, "a server that hangs holds nothing up"
        assert expected(json.loads((tmp_path / FILE).read_text())[service][-1])
    finally:
        stack.stop()
