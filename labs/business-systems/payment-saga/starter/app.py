"""Takes orders: the goods are reserved, the customer is charged, the parcel is sent; or none of it stays."""

import os
import threading
import uuid
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
import pymysql
from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel, Field

TABLE = """CREATE TABLE IF NOT EXISTS orders (
  number BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  request VARCHAR(64) NOT NULL,
  body TEXT NOT NULL,
  status VARCHAR(16) NOT NULL
)"""

url = urlsplit(os.environ["MYSQL_URL"])
partners = httpx.Client(timeout=1)
local = threading.local()


class Order(BaseModel):
    customer: str
    item: str
    amount: int = Field(gt=0)


def execute(statement: str, *values) -> pymysql.cursors.Cursor:
    """Run a statement, committed at once, on this thread's connection."""
    if not hasattr(local, "connection"):
        place = {"host": url.hostname, "port": url.port, "user": url.username, "password": url.password, "database": url.path.lstrip("/")}
        local.connection = pymysql.connect(**place, autocommit=True, cursorclass=pymysql.cursors.DictCursor)
    cursor = local.connection.cursor()
    cursor.execute(statement, values)
    return cursor


def find(key: str) -> dict | None:
    return execute("SELECT * FROM orders WHERE request = %s", key).fetchone()


def steps(key: str, order: Order) -> list[tuple[str, dict]]:
    """What is to be done, in this order; the parcel comes last."""
    return [
        (f"{os.environ['INVENTORY_URL']}/reservations", {"reference": key, "item": order.item}),
        (f"{os.environ['BANK_URL']}/charges", {"reference": key, "customer": order.customer, "amount": order.amount}),
        (f"{os.environ['SHIPPING_URL']}/parcels", {"reference": key, "customer": order.customer, "item": order.item}),
    ]


def drive(key: str, order: Order) -> str:
    """Do it all; if something fails, undo what was done."""
    done = []
    try:
        for place, body in steps(key, order):
            step = uuid.uuid4().hex
            partners.post(place, json=body, headers={"Idempotency-Key": step}).raise_for_status()
            done.append(f"{place}/{step}")
    except httpx.HTTPError:
        for thing in reversed(done):
            partners.delete(thing)
        return "CANCELLED"
    return "COMPLETED"


@asynccontextmanager
async def start(app: FastAPI):
    execute(TABLE)
    yield


app = FastAPI(lifespan=start)


def tell(row: dict) -> dict:
    return {"order": row["number"], "status": row["status"]}


@app.post("/orders")
def post_order(order: Order, idempotency_key: str = Header()) -> dict:
    row = find(idempotency_key)
    if row is None:
        status = drive(idempotency_key, order)
        execute("INSERT INTO orders (request, body, status) VALUES (%s, %s, %s)", idempotency_key, order.model_dump_json(), status)
        row = find(idempotency_key)
    return tell(row)


@app.get("/orders/{key}")
def get_order(key: str) -> dict:
    row = find(key)
    if row is None:
        raise HTTPException(404, "no order came with this key")
    return tell(row)


@app.get("/healthz")
def healthz() -> dict:
    execute("SELECT 1")
    return {"ok": True}
