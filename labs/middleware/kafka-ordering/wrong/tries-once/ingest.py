# bug: sends each event once, so an acknowledgement that is lost turns its shop away
"""Takes the events of orders and hands them to Kafka."""

import json
import os

from fastapi import FastAPI, HTTPException
from kafka import KafkaProducer
from kafka.errors import KafkaError
from pydantic import BaseModel

app = FastAPI()
producer = KafkaProducer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"], acks="all", retries=0, enable_idempotence=False)


class Event(BaseModel):
    version: int
    type: str


@app.post("/orders/{order}/events", status_code=202)
def post_event(order: str, event: Event) -> dict:
    value = json.dumps({"order": order, **event.model_dump()}).encode()
    # The key decides the partition, and a partition keeps its order. Answer when the broker has it.
    try:
        producer.send("orders", key=order.encode(), value=value).get(timeout=20)
    except KafkaError as error:
        raise HTTPException(503, "Kafka is not there, try again") from error
    return {"status": "accepted"}


@app.get("/healthz")
def healthz() -> dict:
    return {"ok": True}
