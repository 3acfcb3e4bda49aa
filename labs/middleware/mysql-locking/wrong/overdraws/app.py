# bug: nothing checks that the sender has the money
"""Moves money between accounts, after asking the fraud service."""

import os
import threading
from urllib.parse import urlsplit

import httpx
import pymysql
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field
from pymysql.constants import ER

TRIES = 5

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


def is_honest(transfer: Transfer) -> bool:
    answer = fraud.post("/checks", json=transfer.model_dump(by_alias=True))
    return answer.raise_for_status().json()["ok"]


@app.post("/transfers")
def transfer_money(transfer: Transfer) -> dict:
    if not is_honest(transfer):
        raise HTTPException(403, "rejected by the fraud service")
    for _ in range(TRIES):
        connection = connect()
        try:
            with connection.cursor() as cursor:
                move(cursor, transfer)
            connection.commit()
        except pymysql.MySQLError as error:
            connection.rollback()
            if error.args[0] == ER.DUP_ENTRY:
                return {"status": "done"}  # by an earlier try
            if error.args[0] not in (ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT):
                raise
        else:
            return {"status": "done"}
    raise HTTPException(503, "the accounts are busy, try again")


def move(cursor: pymysql.cursors.Cursor, transfer: Transfer) -> None:
    """One transaction's statements."""
    cursor.execute("INSERT INTO transfers VALUES (%s, %s, %s, %s)", (transfer.id, transfer.source, transfer.target, transfer.amount))
    # Everybody locks in the order of the ids: no two can wait for each other.
    cursor.execute("SELECT id FROM accounts WHERE id IN (%s, %s) ORDER BY id FOR UPDATE", (transfer.source, transfer.target))
    cursor.execute("UPDATE accounts SET balance = balance - %s WHERE id = %s", (transfer.amount, transfer.source))
    cursor.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (transfer.amount, transfer.target))


@app.get("/healthz")
def healthz() -> dict:
    return {"ok": True}
