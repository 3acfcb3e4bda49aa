# bug: hands the records of a partition to a thread pool, where they overtake each other, and writes them without a condition
"""Applies the events of orders to the order service: in a thread pool."""

import json
import logging
import os
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import httpx
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata

COMMIT_EVERY_S = 0.2
RETRY_S = 0.1

sink = httpx.Client(base_url=os.environ["SINK_URL"], timeout=5, limits=httpx.Limits(max_connections=100))


def apply(event: dict) -> None:
    """Write until it is written."""
    while True:
        try:
            if sink.put(f"/orders/{event['order']}", json={"version": event["version"]}).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(RETRY_S)  # nobody tells when a stuck order goes on


class Pool:
    """Records run side by side."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(max_workers=64)
        self.unfinished: dict = defaultdict(dict)  # partition -> offsets that are not applied, in the order of their arrival
        self.next: dict = {}
        self.lock = threading.Lock()

    def add(self, partition, record) -> None:
        event = json.loads(record.value)
        with self.lock:
            self.unfinished[partition][record.offset] = True
            self.next[partition] = record.offset + 1
            self.threads.submit(self.run, partition, record.offset, event)

    def run(self, partition, offset: int, event: dict) -> None:
        apply(event)
        with self.lock:
            self.unfinished[partition].pop(offset, None)

    def low_water(self) -> dict:
        """What may be committed: up to the first offset of each partition that is not applied yet."""
        with self.lock:
            return {p: OffsetAndMetadata(next(iter(self.unfinished[p]), end), "", -1) for p, end in self.next.items()}

    def keep(self, partitions) -> None:
        with self.lock:
            for partition in self.next.keys() - set(partitions):
                self.unfinished.pop(partition, None)
                del self.next[partition]


class Ownership(ConsumerRebalanceListener):
    """Partitions that went to somebody else are no longer ours to commit. Those that come straight back go on where they were."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def on_partitions_revoked(self, revoked) -> None:
        pass

    def on_partitions_assigned(self, assigned) -> None:
        self.pool.keep(assigned)


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
    pool = Pool()
    consumer.subscribe(["orders"], listener=Ownership(pool))
    committed = time.monotonic()
    while True:
        for partition, records in consumer.poll(timeout_ms=100).items():
            for record in records:
                pool.add(partition, record)
        if time.monotonic() - committed > COMMIT_EVERY_S:
            committed = time.monotonic()
            if offsets := pool.low_water():
                consumer.commit_async(offsets)


if __name__ == "__main__":
    main()
