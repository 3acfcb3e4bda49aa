# bug: makes a number of an amount that is a string, and pays what should have been parked
"""Pays the credits in the topic: a lane for each partition, beside the loop that polls."""

import json
import logging
import os
import threading
import time
from queue import SimpleQueue
from urllib.parse import quote

import httpx
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, OffsetAndMetadata

COMMIT_EVERY_S = 0.2
TRIES = 5
FIRST_PAUSE_S = 0.03
WAITING_AT_MOST = 200  # records of a partition, until it is paused

place = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
bank = httpx.Client(base_url=os.environ["BANK_URL"], timeout=30)  # a person looks at large payments
producer = KafkaProducer(bootstrap_servers=place, acks="all")


class Poison(Exception):
    """A record that can never be paid, and why."""


def pay(record) -> None:
    """Pay it, however often it takes: the credit's id is the key, so a second time does nothing. Raises Poison."""
    try:
        credit = json.loads(record.value)
        payment = {"reference": credit["id"], "account": credit["account"], "amount": int(credit["amount"])}
        headers = {"Idempotency-Key": quote(str(credit["id"]), safe="")}  # a header is ASCII, an id need not be
    except (ValueError, TypeError, KeyError) as error:
        raise Poison(f"this is no credit: {error!r}") from error
    seen = ""
    for n in range(TRIES):
        if n:
            time.sleep(FIRST_PAUSE_S * 2**n)  # back-off: nothing tells when the bank is well again
        try:
            answer = bank.post("/payments", json=payment, headers=headers)
            if answer.status_code == 200:
                return
            seen = f"the bank answered {answer.status_code}: {answer.text}"
            if answer.status_code < 500:
                break
        except httpx.HTTPError as error:
            seen = f"the bank gave no answer: {error!r}"  # it may have paid all the same
        except ValueError as error:  # such as NaN, which is no JSON
            raise Poison(f"this cannot be sent: {error!r}") from error
    raise Poison(seen)


def park(record, reason: str) -> None:
    """To the dead-letter topic, as it came; returns when the broker has it."""
    headers = [("reason", reason.encode()), ("origin", f"{record.topic}/{record.partition}/{record.offset}".encode())]
    producer.send("credits-dead", key=record.key, value=record.value, headers=headers).get()


class Lane:
    """Pays the records of one partition in their order."""

    def __init__(self) -> None:
        self.waiting: SimpleQueue = SimpleQueue()
        self.done: int | None = None  # the offset that may be committed: everything below is paid or parked
        self.is_ours = True
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while (record := self.waiting.get()) and self.is_ours:
            try:
                pay(record)
            except Poison as poison:
                park(record, str(poison))
            self.done = record.offset + 1

    def close(self) -> None:
        self.is_ours = False
        self.waiting.put(None)


class Lanes(ConsumerRebalanceListener):
    """The lanes of the partitions that are ours. Those that come straight back from a rebalance go on where they were."""

    def __init__(self) -> None:
        self.lanes: dict = {}

    def add(self, partition, records) -> None:
        if partition not in self.lanes:
            self.lanes[partition] = Lane()
        for record in records:
            self.lanes[partition].waiting.put(record)

    def finished(self) -> dict:
        return {p: OffsetAndMetadata(lane.done, "", -1) for p, lane in self.lanes.items() if lane.done is not None}

    def full(self) -> set:
        return {p for p, lane in self.lanes.items() if lane.waiting.qsize() > WAITING_AT_MOST}

    def keep(self, partitions) -> None:
        for partition in self.lanes.keys() - set(partitions):
            self.lanes.pop(partition).close()

    # These are called while poll() waits, by the client's network thread.

    def on_partitions_revoked(self, revoked) -> None:
        pass  # the most of them come straight back

    def on_partitions_assigned(self, assigned) -> None:
        self.keep(assigned)

    def on_partitions_lost(self, lost) -> None:
        self.keep(())


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.INFO)  # tells how the group comes together
    consumer = KafkaConsumer(
        bootstrap_servers=place,
        group_id="payroll",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=2000,  # so long a dead worker's partitions wait
        heartbeat_interval_ms=500,
        max_poll_interval_ms=10_000,  # the loop below never waits for a payment
    )
    lanes = Lanes()
    consumer.subscribe(["credits"], listener=lanes)
    committed = time.monotonic()
    while True:
        for partition, records in consumer.poll(timeout_ms=100).items():
            lanes.add(partition, records)
        consumer.resume(*consumer.paused())
        consumer.pause(*lanes.full())
        if time.monotonic() - committed > COMMIT_EVERY_S:
            committed = time.monotonic()
            if offsets := lanes.finished():
                consumer.commit_async(offsets)


if __name__ == "__main__":
    main()
