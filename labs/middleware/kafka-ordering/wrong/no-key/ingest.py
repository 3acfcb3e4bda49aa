# bug: produces without a key, so the events of one order lie in several partitions, and writes them without a condition
"""Takes the events of orders and hands them to Kafka."""

import json
import os

from fastapi import FastAPI
from kafka import KafkaProducer
from pydantic import BaseModel

app = FastAPI()
producer = KafkaProducer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"], acks="all", enable_idempotence=True)


class Event(BaseModel):
    version: int
    type: str


@app.post("/orders/{order}/events", status_code=202)
def post_event(order: str, event: Event) -> dict:
    value = json.dumps({"order": order, **event.model_dump()}).encode()
    producer.send("orders", value=value).get(timeout=20)  # answer when the broker has it
    return {"status": "accepted"}


@app.get("/healthz")
def healthz() -> dict:
    return {"ok": True}
