"""Takes credits by HTTP and hands them to Kafka."""

import json
import os

from fastapi import FastAPI
from kafka import KafkaProducer
from pydantic import BaseModel

app = FastAPI()
producer = KafkaProducer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"], acks="all")


class Credit(BaseModel):
    id: str
    account: str
    amount: int


@app.post("/credits", status_code=202)
def post_credit(credit: Credit) -> dict:
    producer.send("credits", json.dumps(credit.model_dump()).encode()).get(timeout=20)
    return {"status": "accepted"}


@app.get("/healthz")
def healthz() -> dict:
    return {"ok": True}
