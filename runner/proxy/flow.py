"""A flow: what one side of a connection sends to the other, with its back-pressure, its end, and what faults make of it."""

import asyncio
import contextlib
import enum
import math
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.proxy.fault import UP, Fault
from runner.proxy.frames import LOOK, NEXT, Message, Parser, UnframedError

if TYPE_CHECKING:
    from runner.proxy.relay import Connection

QUEUE_LIMIT = 256 * 1024  # of delayed bytes in one direction; beyond it the sender waits
LINGER_S = 1.0
SLICE_S = 0.01  # what a limited bandwidth lets pass at once
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER: close sends RST


class Ending(enum.Enum):
    """How a flow ends, once the bytes before it are out."""

    EOF = "half-close"
    RESET = "reset"
    CLOSE = "close, and let the reader read what was before"


Route = tuple[float, Fault | None]  # seconds of delay, and who holds it back
STRAIGHT: Route = (0.0, None)


@dataclass(slots=True)
class Item:
    """What waits in a flow. It goes not before it is due, nor before what came first."""

    due: float
    hold: Fault | None
    what: bytes | Ending


def reset(transport: asyncio.Transport) -> None:
    """End a connection with RST, whatever is still in its buffer."""
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    transport.abort()


class Flow:
    """What one side sends to the other. Bytes keep their order, whatever their delays."""

    def __init__(self, connection: "Connection", direction: str, parser: Parser) -> None:
        self.connection = connection
        self.link = connection.link
        self.direction = direction
        self.parser = parser
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.dropped_by: Fault | None = None  # this connection alone; the link has its own
        self.has_gap = False  # bytes were dropped: what comes next would be garbage
        self.is_deaf = False  # read and forget, for good
        self.is_finished = False  # its end was passed on
        self._has_ended = False  # its source will send no more
        self._is_blocked = False  # the sink's buffer is full
        self._head = bytearray()  # the begin of the current message
        self._route: Route | None = None  # of the current message, once it is known
        self._kept: list[bytes] = []  # of a message that is not known yet
        self._ready: list[bytes] = []  # to be written at once, when the chunk has been looked through
        self._queue: deque[Item] = deque()
        self._queued = 0
        self._timer: asyncio.TimerHandle | None = None

    def received(self, data: bytes) -> None:
        """Count messages, let faults choose theirs, and pass it on."""
        self.link.volume[self.direction] += len(data)
        is_calm = self.link.is_calm and not (self._queue or self._kept or self.is_deaf or self.dropped_by or self.connection.pending)
        at = 0
        while at < len(data) and not self.is_deaf:
            start = at
            at, ends = self._consume(data, at)
            piece = data if at - start == len(data) else data[start:at]
            if self._route is None:
                self._look(piece, ends=ends)
            if not is_calm:
                self._pass(piece)
            if ends:
                self._head.clear()
                self._route = None
        if not is_calm:
            self.flush()
        else:
            assert self.sink is not None  # nothing is read before there is one
            self.sink.write(data)

    def flush(self) -> None:
        """Write what nothing delays: in one piece, since a thousand rows are a thousand messages."""
        if self._ready:
            assert self.sink is not None
            self.sink.write(b"".join(self._ready))
            self._ready.clear()

    def _consume(self, data: bytes, at: int) -> tuple[int, bool]:
        try:
            return self.parser.consume(data, at)
        except UnframedError as error:
            self.connection.unframe(error)
            return len(data), True

    def _look(self, piece: bytes, *, ends: bool) -> None:
        self._head += piece[: LOOK - len(self._head)]
        if not (ends or len(self._head) >= LOOK or self.parser.is_enough(self._head)):
            return
        try:
            message = self.parser.read(bytes(self._head))
        except UnframedError as error:
            self.connection.unframe(error)
            message = Message("chunk", bytes(self._head), NEXT)
        self._route = self.connection.take_request(message) if self.direction == UP else self.connection.take_reply(message)

    def _must_keep(self) -> bool:
        """Whether a fault may want the current message, which is not known yet."""
        return self._route is None and bool(self.link.triggered if self.direction == UP else self.connection.pending)

    def _pass(self, piece: bytes) -> None:
        self._kept.append(piece)
        if not self._must_keep():
            self._release()

    def _release(self) -> None:
        if self._kept:
            piece = b"".join(self._kept)
            self._kept.clear()
            self._send(piece, *(self._route or STRAIGHT))

    def _send(self, piece: bytes, delay_s: float, hold: Fault | None) -> None:
        if self.is_deaf:
            return
        if dropped_by := self.dropping:
            dropped_by.fired += 1
            self.has_gap = True
            return
        for fault in self.link.delays[self.direction]:
            delay_s += self.link.pick_delay(fault)
            fault.fired += 1
        holds, paces = self.link.holds[self.direction], self.link.paces[self.direction]
        for fault in (*holds, *paces):
            fault.fired += 1
        if not (hold or delay_s or holds or paces or self._queue):
            self._ready.append(piece)
            return
        self.flush()
        self._queue.append(Item(self.link.loop.time() + delay_s, hold, piece))
        self._queued += len(piece)
        self.pump()

    @property
    def dropping(self) -> Fault | None:
        """The fault that drops what comes now."""
        if self.dropped_by is not None:
            return self.dropped_by
        return self.link.drops[self.direction][0] if self.link.drops[self.direction] else None

    def pump(self) -> None:
        """Pass on what is due, in order; also called when a fault has been healed or the sink takes bytes again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.dropping is not None:
            self._forget()
        elif not self._must_keep():
            self._release()
            self.flush()
        wait_until = 0.0
        while self._queue and not self._is_blocked and not self.link.holds[self.direction] and not wait_until:
            item = self._queue[0]
            if item.hold is not None and not item.hold.is_healed:
                break
            wait_until = self._write(item) if item.due <= self.link.loop.time() else item.due
        if wait_until:
            self._timer = self.link.loop.call_at(wait_until, self.pump)
        self.update_reading()

    def _write(self, item: Item) -> float:
        """Pass on the first item or a part of it. Returns when to go on; 0 means at once."""
        if isinstance(item.what, Ending):
            self._queue.popleft()
            self._end(item.what)
            return 0.0
        assert self.sink is not None
        size, wait_until = len(item.what), 0.0
        if paces := self.link.paces[self.direction]:
            now, free_at = self.link.loop.time(), max(pace.free_at for pace in paces)
            if now < free_at:
                return free_at
            size = min(size, *(max(1, int(pace.bytes_per_s * SLICE_S)) for pace in paces))
            for pace in paces:
                pace.free_at = max(pace.free_at, now - SLICE_S) + size / pace.bytes_per_s  # timers are late: catch up
            wait_until = math.nextafter(max(pace.free_at for pace in paces), math.inf)  # whoever waits already comes first
        self.sink.write(item.what[:size])
        self._queued -= size
        if size == len(item.what):
            self._queue.popleft()
        else:
            item.what = item.what[size:]
        return wait_until

    def _forget(self) -> None:
        """Drop what waits. An end that waits is dropped too: nobody will be told."""
        if self._queue or self._kept:
            self.has_gap = True
        self._kept.clear()
        self._queue.clear()
        self._queued = 0

    def die(self) -> None:
        """Its reader is gone, or must not read on."""
        self.is_deaf = True
        if self._timer is not None:
            self._timer.cancel()
        self._ready.clear()
        self._kept.clear()
        self._queue.clear()
        self._queued = 0
        self.update_reading()

    def finish(self, how: Ending) -> None:
        """End it after all that was sent before."""
        self._has_ended = True
        if self.dropping is not None:
            self.has_gap = True
            return
        self._release()
        self.flush()
        delay_s = sum(map(self.link.pick_delay, self.link.delays[self.direction]))
        if self._queue or delay_s or self.link.holds[self.direction]:
            self._queue.append(Item(self.link.loop.time() + delay_s, None, how))
            self.pump()
        else:
            self._end(how)

    def _end(self, how: Ending) -> None:
        if self.sink is None:
            self.connection.abort()
        elif how is Ending.EOF:
            with contextlib.suppress(OSError):  # reset meanwhile, which we shall be told
                self.sink.write_eof()
            self.is_finished = True
            self.connection.end_if_finished()
        elif how is Ending.CLOSE:
            with contextlib.suppress(OSError):
                self.sink.write_eof()
            # Were it closed at once with bytes unread, the kernel would send RST, and the reader could lose what came before.
            self.link.loop.call_later(LINGER_S, self.connection.abort)
        else:
            self.connection.abort()

    def block(self, is_blocked: bool) -> None:
        """The sink's buffer is full, or takes bytes again."""
        self._is_blocked = is_blocked
        if is_blocked:
            self.update_reading()
        else:
            self.link.loop.call_soon(self.pump)  # not at once: asyncio tells us in the middle of a write, and cannot bear an abort there

    def update_reading(self) -> None:
        """Read from the source only while there is room for it: nothing is buffered without bound."""
        if self.source is None or self._has_ended or self.source.is_closing():
            return
        has_room = self.sink is not None and not self._is_blocked and self._queued <= QUEUE_LIMIT
        if has_room or self.is_deaf or self.dropping is not None:
            self.source.resume_reading()
        else:
            self.source.pause_reading()
