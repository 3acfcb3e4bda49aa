"""Pays the credits in the topic."""

import json
import logging
import os

import httpx
from kafka import KafkaConsumer

bank = httpx.Client(base_url=os.environ["BANK_URL"], timeout=5)


def pay(record) -> None:
    credit = json.loads(record.value)
    payment = {"reference": credit["id"], "account": credit["account"], "amount": credit["amount"]}
    bank.post("/payments", json=payment).raise_for_status()


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.INFO)  # tells how the group comes together
    consumer = KafkaConsumer(
        "credits",
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id="payroll",
        auto_offset_reset="earliest",
        session_timeout_ms=2000,
        heartbeat_interval_ms=500,
        max_poll_interval_ms=3000,
    )
    for record in consumer:
        try:
            pay(record)
        except (httpx.HTTPError, ValueError, TypeError, KeyError) as error:
            print(f"record {record.offset} of partition {record.partition} was not paid: {error!r}")


if __name__ == "__main__":
    main()
