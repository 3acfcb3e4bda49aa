"""Applies the events of orders to the order service."""

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor

import httpx
from kafka import KafkaConsumer, KafkaProducer

sink = httpx.Client(base_url=os.environ["SINK_URL"], timeout=5, limits=httpx.Limits(max_connections=100))
producer = KafkaProducer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"])
pool = ThreadPoolExecutor(max_workers=16)


def apply(event: dict) -> None:
    try:
        sink.put(f"/orders/{event['order']}", json={"version": event["version"]}).raise_for_status()
    except httpx.HTTPError:
        producer.send("orders", value=json.dumps(event).encode())  # try again later


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.INFO)  # tells how the group comes together
    consumer = KafkaConsumer(
        "orders",
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id="orders",
        auto_offset_reset="earliest",
        session_timeout_ms=2000,
        heartbeat_interval_ms=500,
    )
    for record in consumer:
        pool.submit(apply, json.loads(record.value))


if __name__ == "__main__":
    main()
