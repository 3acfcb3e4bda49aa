# bug: leaves or books first and takes it back when that was one too many, so both of two do, and everybody sees them meanwhile
"""Who is on call, and who has which operating room."""

import os
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import pymysql
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field
from pymysql.constants import ER

TRIES = 5

app = FastAPI()
url = urlsplit(os.environ["MYSQL_URL"])
local = threading.local()


class Leave(BaseModel):
    doctor: str


class Booking(BaseModel):
    id: str
    starts: int = Field(alias="from")
    ends: int = Field(alias="to")


def connect() -> pymysql.Connection:
    """This thread's connection. It begins a transaction by itself, at REPEATABLE READ."""
    if not hasattr(local, "connection"):
        local.connection = pymysql.connect(
            host=url.hostname, port=url.port, user=url.username, password=url.password, database=url.path.lstrip("/")
        )
    return local.connection


def in_transaction(work: Callable[..., bool], *what: object) -> bool:
    """Do it in one transaction; all of it again when InnoDB has rolled it back for another's sake."""
    for _ in range(TRIES):
        connection = connect()
        try:
            with connection.cursor() as cursor:
                is_done = work(cursor, *what)
            connection.commit()
        except pymysql.MySQLError as error:
            connection.rollback()
            if error.args[0] not in (ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT):
                raise
        else:
            return is_done
    raise HTTPException(503, "busy, try again")


@app.post("/shifts/{shift}/leave")
def leave_shift(shift: int, leave: Leave) -> dict:
    if not in_transaction(take_off, shift, leave.doctor):
        raise HTTPException(409, "nobody else is on call")
    return {"status": "off call"}


@app.post("/rooms/{room}/bookings", status_code=201)
def book_room(room: int, booking: Booking) -> dict:
    if not in_transaction(book, room, booking):
        raise HTTPException(409, "the room is taken")
    return {"status": "booked"}


def take_off(cursor: pymysql.cursors.Cursor, shift: int, doctor: str) -> bool:
    """False when nobody else is on call."""
    cursor.execute("UPDATE on_call SET is_on = FALSE WHERE shift_id = %s AND doctor = %s", (shift, doctor))
    cursor.connection.commit()
    # Now everybody sees it, and whoever finds that nobody is left comes back.
    if cursor.execute("SELECT doctor FROM on_call WHERE shift_id = %s AND is_on", (shift,)):
        return True
    cursor.execute("UPDATE on_call SET is_on = TRUE WHERE shift_id = %s AND doctor = %s", (shift, doctor))
    return False


def book(cursor: pymysql.cursors.Cursor, room: int, booking: Booking) -> bool:
    """False when the room is taken in a part of the time."""
    cursor.execute("INSERT INTO bookings VALUES (%s, %s, %s, %s)", (booking.id, room, booking.starts, booking.ends))
    cursor.connection.commit()
    # The same: whoever finds another booking in the way takes his own back.
    another = "SELECT id FROM bookings WHERE room_id = %s AND starts_at < %s AND ends_at > %s AND id <> %s"
    if not cursor.execute(another, (room, booking.ends, booking.starts, booking.id)):
        return True
    cursor.execute("DELETE FROM bookings WHERE id = %s", (booking.id,))
    return False


@app.get("/healthz")
def healthz() -> dict:
    return {"ok": True}
