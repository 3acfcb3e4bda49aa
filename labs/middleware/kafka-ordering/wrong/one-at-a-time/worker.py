# bug: applies one record after the other and retries in place, so a stuck order stops its worker
"""Applies the events of orders to the order service: one after the other."""

import json
import logging
import os
import time

import httpx
from kafka import KafkaConsumer

RETRY_S = 0.1

sink = httpx.Client(base_url=os.environ["SINK_URL"], timeout=5, limits=httpx.Limits(max_connections=100))


def apply(event: dict) -> None:
    """Write until it is written. The condition makes a redelivery harmless: an order never goes back."""
    while True:
        try:
            body = {"version": event["version"], "if_version": event["version"] - 1}
            answer = sink.put(f"/orders/{event['order']}", json=body)
            if answer.status_code == 200 or (answer.status_code == 409 and answer.json()["version"] >= event["version"]):
                return
        except httpx.HTTPError:
            pass
        time.sleep(RETRY_S)  # nobody tells when a stuck order goes on


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.INFO)  # tells how the group comes together
    consumer = KafkaConsumer(
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id="orders",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=2000,  # so long a dead worker's partitions wait
        heartbeat_interval_ms=500,
    )
    consumer.subscribe(["orders"])
    for record in consumer:
        apply(json.loads(record.value))
        consumer.commit_async()


if __name__ == "__main__":
    main()
