# bug: pays between two polls with the default poll interval of five minutes, so a large payment stops all its partitions, and the group
"""Pays the credits in the topic, one after the other."""

import json
import logging
import os
import time
from urllib.parse import quote

import httpx
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata

TRIES = 5
FIRST_PAUSE_S = 0.03

place = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
bank = httpx.Client(base_url=os.environ["BANK_URL"], timeout=30)  # a person looks at large payments
producer = KafkaProducer(bootstrap_servers=place, acks="all")


class Poison(Exception):
    """A record that can never be paid, and why."""


def pay(record) -> None:
    """Pay it, however often it takes: the credit's id is the key, so a second time does nothing. Raises Poison."""
    try:
        credit = json.loads(record.value)
        payment = {"reference": credit["id"], "account": credit["account"], "amount": credit["amount"]}
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
        max_poll_records=20,
    )
    consumer.subscribe(["credits"])
    while True:
        for partition, records in consumer.poll(timeout_ms=100).items():
            for record in records:
                try:
                    pay(record)
                except Poison as poison:
                    park(record, str(poison))
                consumer.commit_async({partition: OffsetAndMetadata(record.offset + 1, "", -1)})


if __name__ == "__main__":
    main()
