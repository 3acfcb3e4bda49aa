"""Moves money between accounts, after asking the fraud service."""

import os
import threading
from urllib.parse import urlsplit

import httpx
import pymysql
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field
from pymysql.constants import ER

app = FastAPI()
url = urlsplit(os.environ["MYSQL_URL"])
fraud = httpx.Client(base_url=os.environ["FRAUD_URL"], timeout=5)
local = threading.local()


class Transfer(BaseModel):
    id: str
    source: int = Field(alias="from")
    target: int = Field(alias="to")
    amount: int = Field(gt=0)


def connect() -> pymysql.Connection:
    """This thread's connection."""
    if not hasattr(local, "connection"):
        local.connection = pymysql.connect(
            host=url.hostname, port=url.port, user=url.username, password=url.password, database=url.path.lstrip("/")
        )
    return local.connection


def execute(cursor: pymysql.cursors.Cursor, statement: str, values: tuple) -> None:
    """Run a statement, and once more when MySQL reports a deadlock."""
    try:
        cursor.execute(statement, values)
    except pymysql.MySQLError as error:
        if error.args[0] != ER.LOCK_DEADLOCK:
            raise
        cursor.execute(statement, values)


@app.post("/transfers")
def transfer_money(transfer: Transfer) -> dict:
    connection = connect()
    connection.begin()
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, balance FROM accounts WHERE id IN (%s, %s)", (transfer.source, transfer.target))
        balances = dict(cursor.fetchall())
        answer = fraud.post("/checks", json=transfer.model_dump(by_alias=True))
        if not answer.raise_for_status().json()["ok"]:
            connection.rollback()
            raise HTTPException(403, "rejected by the fraud service")
        if balances[transfer.source] < transfer.amount:
            connection.rollback()
            raise HTTPException(409, "insufficient funds")
        execute(cursor, "UPDATE accounts SET balance = %s WHERE id = %s", (balances[transfer.source] - transfer.amount, transfer.source))
        execute(cursor, "UPDATE accounts SET balance = %s WHERE id = %s", (balances[transfer.target] + transfer.amount, transfer.target))
        values = (transfer.id, transfer.source, transfer.target, transfer.amount)
        execute(cursor, "INSERT IGNORE INTO transfers VALUES (%s, %s, %s, %s)", values)
    connection.commit()
    return {"status": "done"}


@app.get("/healthz")
def healthz() -> dict:
    return {"ok": True}
