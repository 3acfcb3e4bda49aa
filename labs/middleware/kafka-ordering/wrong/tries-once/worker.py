"""Applies the events of orders to the order service: one lane per order, all lanes side by side."""

import json
import logging
import os
import threading
import time
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor

import httpx
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata

COMMIT_EVERY_S = 0.2
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


class Lanes:
    """Records of one order run one after the other, those of different orders side by side."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(max_workers=64)
        self.waiting: dict[str, deque] = defaultdict(deque)
        self.unfinished: dict = defaultdict(dict)  # partition -> offsets that are not applied, in the order of their arrival
        self.next: dict = {}
        self.lock = threading.Lock()

    def add(self, partition, record) -> None:
        event = json.loads(record.value)
        with self.lock:
            self.unfinished[partition][record.offset] = True
            self.next[partition] = record.offset + 1
            lane = self.waiting[event["order"]]
            lane.append((partition, record.offset, event))
            if len(lane) == 1:
                self.pool.submit(self.run, event["order"])

    def run(self, order: str) -> None:
        while True:
            with self.lock:
                partition, offset, event = self.waiting[order][0]
            apply(event)
            with self.lock:
                self.unfinished[partition].pop(offset, None)
                self.waiting[order].popleft()
                if not self.waiting[order]:
                    del self.waiting[order]
                    return

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

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes

    def on_partitions_revoked(self, revoked) -> None:
        pass

    def on_partitions_assigned(self, assigned) -> None:
        self.lanes.keep(assigned)


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
    lanes = Lanes()
    consumer.subscribe(["orders"], listener=Ownership(lanes))
    committed = time.monotonic()
    while True:
        for partition, records in consumer.poll(timeout_ms=100).items():
            for record in records:
                lanes.add(partition, record)
        if time.monotonic() - committed > COMMIT_EVERY_S:
            committed = time.monotonic()
            if offsets := lanes.low_water():
                consumer.commit_async(offsets)


if __name__ == "__main__":
    main()
