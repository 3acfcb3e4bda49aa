# bug: asks a silent partner for half a second whether it did it, and takes "not so far" for "never": what comes late is not undone
"""Takes orders: the goods are reserved, the customer is charged, the parcel is sent; or none of it stays."""

import os
import threading
import time
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
import pymysql
from fastapi import FastAPI, Header, HTTPException, Response
from pydantic import BaseModel, Field
from pymysql.constants import ER

TABLE = """CREATE TABLE IF NOT EXISTS orders (
  number BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  request VARCHAR(64) NOT NULL UNIQUE,
  body TEXT NOT NULL,
  status VARCHAR(16) NOT NULL,
  made INT NOT NULL DEFAULT 0,
  touched TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
)"""
OPEN = ("PENDING", "UNDOING")
TRIES = 6
ABANDONED_S = 3  # an order that nobody has touched for so long has lost its driver

url = urlsplit(os.environ["MYSQL_URL"])
partners = httpx.Client(timeout=1)
local = threading.local()


class Order(BaseModel):
    customer: str
    item: str
    amount: int = Field(gt=0)


class Unsettled(Exception):
    """A partner did not say what became of it."""


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


def begin(key: str, order: Order) -> bool:
    """Write down what is to be done, before any of it is; whether nobody else had."""
    try:
        execute("INSERT INTO orders (request, body, status) VALUES (%s, %s, 'PENDING')", key, order.model_dump_json())
    except pymysql.IntegrityError as error:
        if error.args[0] != ER.DUP_ENTRY:
            raise
        return False
    return True


def move(key: str, status: str, to: str) -> None:
    execute("UPDATE orders SET status = %s, touched = NOW(3) WHERE request = %s AND status = %s", to, key, status)


def look_up(place: str, key: str) -> bool | None:
    """Whether the partner has done it within half a second; None when it does not say."""
    for _ in range(10):
        try:
            answer = partners.get(f"{place}/{key}")
        except httpx.HTTPError:
            return None
        if answer.status_code == 200:
            return answer.json()["status"] == "done"
        time.sleep(0.05)  # nothing tells when a partner has booked, which is the bug
    return False


def ask(method: str, place: str, key: str, body: dict | None = None) -> bool:
    """Whether the partner did it; False when it did not, or will not. When there is no answer, look what became of it. Raises Unsettled."""
    for n in range(TRIES):
        if n:
            time.sleep(0.02 * 2**n)  # back-off: nothing tells when a partner is well again
        try:
            answer = partners.request(method, place, json=body, headers={"Idempotency-Key": key})
        except httpx.HTTPError:
            if method == "POST" and (is_done := look_up(place, key)) is not None:
                return is_done
            continue
        if answer.status_code < 500:
            return answer.status_code == 200
    raise Unsettled


def steps(key: str, order: Order) -> list[tuple[str, dict]]:
    """What is to be done, in this order; the parcel comes last."""
    return [
        (f"{os.environ['INVENTORY_URL']}/reservations", {"reference": key, "item": order.item}),
        (f"{os.environ['BANK_URL']}/charges", {"reference": key, "customer": order.customer, "amount": order.amount}),
        (f"{os.environ['SHIPPING_URL']}/parcels", {"reference": key, "customer": order.customer, "item": order.item}),
    ]


def drive(key: str) -> None:
    """Bring an order to its end, from wherever it is: every step may have been made before, and may be made again."""
    row = find(key)
    todo = steps(key, Order.model_validate_json(row["body"]))
    if row["status"] == "PENDING":
        for place, body in todo[row["made"] :]:
            if not ask("POST", place, key, body):
                move(key, "PENDING", "UNDOING")
                break
            execute("UPDATE orders SET made = made + 1, touched = NOW(3) WHERE request = %s", key)
        else:
            move(key, "PENDING", "COMPLETED")
    row = find(key)
    if row["status"] == "UNDOING":
        for place, _ in reversed(todo[: row["made"]]):
            ask("DELETE", f"{place}/{key}", key)
        move(key, "UNDOING", "CANCELLED")


def drive_abandoned() -> None:
    """Take over what another one, or this one in an earlier life, has left open."""
    while True:
        stale = f"status IN {OPEN} AND touched < NOW(3) - INTERVAL {ABANDONED_S} SECOND"
        for row in execute(f"SELECT request FROM orders WHERE {stale}").fetchall():
            if execute(f"UPDATE orders SET touched = NOW(3) WHERE request = %s AND {stale}", row["request"]).rowcount:
                try:
                    drive(row["request"])
                except Unsettled:
                    print(f"order {row['request']} stays open for now")
        time.sleep(0.5)  # nothing tells of an order that has lost its driver


@asynccontextmanager
async def start(app: FastAPI):
    execute(TABLE)
    threading.Thread(target=drive_abandoned, daemon=True).start()
    yield


app = FastAPI(lifespan=start)


def tell(row: dict, response: Response) -> dict:
    if row["status"] in OPEN:
        response.status_code = 202
        return {"status": "PENDING"}
    return {"order": row["number"], "status": row["status"]}


@app.post("/orders")
def post_order(order: Order, response: Response, idempotency_key: str = Header()) -> dict:
    if begin(idempotency_key, order):
        try:
            drive(idempotency_key)
        except Unsettled:
            print(f"order {idempotency_key} stays open for now")
    row = find(idempotency_key)
    if row["body"] != order.model_dump_json():
        raise HTTPException(422, "this key was used for another order")
    return tell(row, response)


@app.get("/orders/{key}")
def get_order(key: str, response: Response) -> dict:
    row = find(key)
    if row is None:
        raise HTTPException(404, "no order came with this key")
    return tell(row, response)


@app.get("/healthz")
def healthz() -> dict:
    execute("SELECT 1")
    return {"ok": True}
