"""One connection through the proxy: its two sockets, the two flows between them, and the requests whose replies a fault waits for."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.proxy.fault import DOWN, UP, Fault
from runner.proxy.flow import STRAIGHT, Ending, Flow, Route, reset
from runner.proxy.frames import Chunks, Message, UnframedError, open_frames

if TYPE_CHECKING:
    from runner.proxy.link import Link


class Side(asyncio.Protocol):
    """One socket of a connection: the source of one flow, the sink of the other."""

    def __init__(self, connection: "Connection", out: Flow, back: Flow) -> None:
        self.connection = connection
        self.out = out
        self.back = back
        self.transport: asyncio.Transport | None = None
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = self.out.source = self.back.sink = transport
        self.connection.opened(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from it."""
        self.out.received(data)

    def eof_received(self) -> bool:
        """It sends no more; it may still read."""
        self.connection.half_closed(self)
        return True

    def pause_writing(self) -> None:
        """Its buffer is full."""
        self.back.block(True)

    def resume_writing(self) -> None:
        """Its buffer has room."""
        self.back.block(False)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the flows know all of it
        """It is gone."""
        self.is_lost = True
        self.connection.lost(self)


@dataclass(frozen=True, slots=True)
class Pending:
    """A request whose reply is a fault's."""

    fault: Fault
    message: Message


class Connection:
    """A client's connection to the link and ours to the server."""

    def __init__(self, link: "Link", number: int) -> None:
        self.link = link
        self.number = number
        self.pending: list[Pending] = []
        self.is_over = False
        self._is_losing = False
        up, down = open_frames(link.protocol)
        self.up, self.down = Flow(self, UP, up), Flow(self, DOWN, down)
        self.client = Side(self, self.up, self.down)
        self.server = Side(self, self.down, self.up)
        self._connecting: asyncio.Task[None] | None = None

    def opened(self, side: Side) -> None:
        """A client came, or the server took us."""
        if side is self.server:
            if self.is_over:
                self.abort()
            else:
                self.up.pump()
                self.down.pump()
            return
        self.link.connections.add(self)
        # In the next turn of the loop: before Python 3.11.4 asyncio starts to read after this one, paused or not (cpython gh-103607).
        self.link.loop.call_soon(self.up.update_reading)
        if self.link.is_cut():  # it had been accepted in the turn of the loop in which the cut came
            self.abort()
        elif self.up.dropping is None or self.down.dropping is None:  # into a black hole no connection leads
            self._connecting = self.link.loop.create_task(self._connect())
        else:
            self.up.has_gap = self.down.has_gap = True

    @property
    def is_spoilt(self) -> bool:
        """Whether a flow that has lost bytes would now go on."""
        return any(flow.has_gap and flow.dropping is None for flow in (self.up, self.down))

    async def _connect(self) -> None:
        try:
            await self.link.loop.create_connection(lambda: self.server, *self.link.target)
        except OSError as error:
            self.link.unreachable += 1
            self.link.note("unreachable", connection=self.number, error=str(error))
            self.abort()

    def unframe(self, error: UnframedError) -> None:
        """Its bytes cannot be told apart any more: from now on each chunk is a message."""
        self.link.unframed += 1
        self.link.note("unframed", connection=self.number, error=str(error))
        self.up.parser = self.down.parser = Chunks()

    def take_request(self, message: Message) -> Route:
        """Count it, and let every fault that waits for it act. Returns what shall happen to it."""
        if not message.is_request:
            return STRAIGHT
        self.link.count(message)
        delay_s, hold = STRAIGHT
        taking = [fault for fault in self.link.triggered if fault.takes(message)]
        for fault in taking:
            if fault.kind not in {"delay", "hold", "lose_reply"}:
                self.link.note("triggered", fault, connection=self.number, message=message)
                self.up.flush()
                self.strike(fault)
                continue
            if fault.kind == "lose_reply" or fault.acts(DOWN):
                self.pending.append(Pending(fault, message))
                self.link.note("awaits reply", fault, connection=self.number, message=message)
            if fault.kind != "lose_reply" and fault.acts(UP):
                self._note(fault, message)
                delay_s, hold = self._slow(fault, delay_s, hold)
        if taking:
            self.link.refresh()
        return delay_s, hold

    def take_reply(self, message: Message) -> Route:
        """Let the faults that wait for this reply act."""
        self.link.replies += 1
        delay_s, hold = STRAIGHT
        for pending in [pending for pending in self.pending if pending.message.key == message.key]:
            self.pending.remove(pending)
            if pending.fault.is_healed:
                continue
            self._note(pending.fault, pending.message)
            if pending.fault.kind == "lose_reply":
                self._lose()
            else:
                delay_s, hold = self._slow(pending.fault, delay_s, hold)
        return delay_s, hold

    def _note(self, fault: Fault, message: Message) -> None:
        fault.fired += 1
        self.link.note(fault.kind, fault, connection=self.number, message=message)

    def _slow(self, fault: Fault, delay_s: float, hold: Fault | None) -> Route:
        return (delay_s, fault) if fault.kind == "hold" else (delay_s + self.link.pick_delay(fault), hold)

    def strike(self, fault: Fault) -> None:
        """A triggered fault that hurts more than a message: on this connection, or on the whole link."""
        if fault.scope == "link":
            self.link.switch_on(fault)
        elif fault.kind == "cut":
            fault.fired += 1
            self.link.note("cut", fault, connections=1)
            self.abort()
        else:
            for flow in (self.up, self.down):
                if fault.acts(flow.direction):
                    flow.dropped_by = fault
                    flow.pump()

    def _lose(self) -> None:
        """The server has answered: nobody will read it."""
        self._is_losing = True
        self.up.die()
        self.down.finish(Ending.CLOSE)
        self.down.is_deaf = True
        assert self.server.transport is not None
        reset(self.server.transport)

    def half_closed(self, side: Side) -> None:
        """One side sends no more."""
        if self._is_losing:
            self.abort()
        elif not side.out.is_deaf:
            side.out.finish(Ending.EOF)

    def end_if_finished(self) -> None:
        """Close both sides when both ends were passed on; what is in their buffers still goes out."""
        if self.up.is_finished and self.down.is_finished:
            self.is_over = True
            for side in (self.client, self.server):
                if side.transport is not None:
                    side.transport.close()

    def lost(self, side: Side) -> None:
        """One side is gone: by our hand, or by a reset, which the other side gets after what a fault holds back."""
        side.back.die()
        if not self.is_over and not self._is_losing:
            side.out.finish(Ending.RESET)
        if self.client.is_lost and (self.server.is_lost or self.server.transport is None):
            self.is_over = True
            self.link.connections.discard(self)

    def abort(self) -> None:
        """Reset both sides at once."""
        self.is_over = True
        self.up.die()
        self.down.die()
        if self._connecting is not None:
            self._connecting.cancel()
        for side in (self.client, self.server):
            if side.transport is not None:
                reset(side.transport)
