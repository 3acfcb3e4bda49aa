"""The proxy as a process, between two sockets of the test: nothing is lost without a fault, and each fault does what it says and no more."""

import asyncio
import contextlib
import http.client
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import LabError
from runner.proxy.fault import read_fault
from runner.proxy.frames import NEXT, PROTOCOLS, Message
from runner.proxy.link import Ledger, Link
from runner.stack.ports import HOST, Ports
from runner.wire import LinkPlan, ProxyControl, Wire, proxy_env

TOKEN = "known-to-the-kit-alone"
SOON_S = 10.0


class Wired:
    """A proxy, and the listening socket that all its links lead to."""

    def __init__(self, ports: list[int], process: subprocess.Popen[bytes], control: ProxyControl, listener: socket.socket) -> None:
        self.ports = dict(zip([*PROTOCOLS, "nowhere"], ports, strict=True))
        self.process = process
        self.control = control
        self.listener = listener

    def wire(self, protocol: str = "any") -> Wire:
        """The link of that name; it speaks the protocol."""
        return Wire(protocol, self.control)

    def client(self, protocol: str = "any") -> socket.socket:
        """Connect to a link."""
        client = socket.create_connection((HOST, self.ports[protocol]), timeout=SOON_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    @contextlib.contextmanager
    def pair(self, protocol: str = "any") -> Iterator[tuple[socket.socket, socket.socket]]:
        """A client of a link, and the server's end of its connection."""
        with self.client(protocol) as client:
            server, _ = self.listener.accept()
            server.settimeout(SOON_S)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with server:
                yield client, server


@pytest.fixture(scope="module")
def proxy() -> Iterator[Wired]:
    """One process for all tests of this file."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0)))
        listener.settimeout(SOON_S)
        held = Ports()
        stack.callback(held.release)
        ports = [held.take() for _ in range(len(PROTOCOLS) + 1)]
        control_port, closed_port = held.take(), held.take()
        target = f"{HOST}:{listener.getsockname()[1]}"
        links = [LinkPlan(name, port, target, name) for name, port in zip(PROTOCOLS, ports, strict=False)]
        links.append(LinkPlan("nowhere", ports[-1], f"{HOST}:{closed_port}"))
        env = proxy_env(links, control_port, TOKEN, seed=7) | {"PATH": os.environ["PATH"]}
        process = stack.enter_context(subprocess.Popen([sys.executable, "-m", "runner.proxy"], env=env, cwd="/"))
        stack.callback(process.kill)
        control = ProxyControl(HOST, control_port, TOKEN)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                control.ask("GET", "/links")
                break
            assert process.poll() is None, "it ended"
            assert time.monotonic() < deadline, "it does not answer"
            time.sleep(0.01)
        yield Wired(ports, process, control, listener)
        assert process.poll() is None, "it died under the tests"


@pytest.fixture(autouse=True)
def heal_all(proxy: Wired, eventually: Callable[..., Any]) -> Iterator[None]:
    """No test leaves a fault or a connection to the next."""
    yield
    for protocol in PROTOCOLS:
        proxy.wire(protocol).heal()
    eventually(lambda: not any(link["open"] for link in proxy.control.ask("GET", "/links").values()), "every connection is forgotten")


def read_exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        assert part, f"it ended after {data!r}"
        data += part
    return data


def read_to_end(source: socket.socket) -> bytes:
    data = bytearray()
    while part := source.recv(1 << 16):
        data += part
    return bytes(data)


def is_silent(source: socket.socket, for_s: float = 0.1) -> bool:
    """Nothing comes, no end either. That something does not happen can only be waited for."""
    return not select.select([source], [], [], for_s)[0]


def reset(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def mysql(text: bytes) -> bytes:
    return (len(text) + 1).to_bytes(3, "little") + b"\0\x03" + text


OK = b"\x07\0\0\x01\0\0\0\x02\0\0\0"


def kafka(api: int, correlation: int, rest: bytes = b"\xff\xff") -> bytes:
    return struct.pack(">ihhI", 8 + len(rest), api, 0, correlation) + rest


def kafka_reply(correlation: int, rest: bytes = b"fine") -> bytes:
    return struct.pack(">iI", 4 + len(rest), correlation) + rest


# Without a fault


def make_bytes(size: int) -> bytes:
    """No two stretches are alike, so that none can be lost, doubled or moved unseen."""
    return random.Random(size).randbytes(size)


chunks = st.lists(st.one_of(st.binary(max_size=30), st.integers(1, 300_000).map(make_bytes)), max_size=8)
waiters = st.sampled_from(["nobody", "client", "server"])
LIVELY = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def exchange(proxy: Wired, protocol: str, up: list[bytes], down: list[bytes], waits: str) -> None:
    """Send both ways at once, then half-close; who waits sends only after the other's end. All of it must arrive."""

    def send(one: socket.socket, parts: list[bytes]) -> None:
        for part in parts:
            one.sendall(part)
        one.shutdown(socket.SHUT_WR)

    with proxy.pair(protocol) as (client, server), ThreadPoolExecutor(4) as threads:
        heard = {"client": threads.submit(read_to_end, client), "server": threads.submit(read_to_end, server)}
        for name, one, parts in sorted((("client", client, up), ("server", server, down)), key=lambda side: side[0] == waits):
            if name == waits:
                heard[name].result(SOON_S)
            threads.submit(send, one, parts)
        assert heard["server"].result(SOON_S) == b"".join(up)
        assert heard["client"].result(SOON_S) == b"".join(down)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@LIVELY
@given(up=chunks, down=chunks, waits=waiters)
def test_no_byte_is_lost_or_reordered(proxy: Wired, protocol: str, up: list[bytes], down: list[bytes], waits: str) -> None:
    """Also on links that try to understand what they carry, and cannot."""
    exchange(proxy, protocol, up, down, waits)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@LIVELY
@given(up=chunks, down=chunks, waits=waiters)
def test_slow_links_lose_and_reorder_nothing_either(proxy: Wired, protocol: str, up: list[bytes], down: list[bytes], waits: str) -> None:
    """Each flow now goes through its queue, in pieces of a message."""
    wire = proxy.wire(protocol)
    wire.heal()
    wire.delay(0.002, 0.002)
    wire.bandwidth(50e6)
    wire.delay(1, when="no request has this text")
    exchange(proxy, protocol, up, down, waits)


def test_what_a_client_sends_at_once_arrives(proxy: Wired) -> None:
    for number in range(50):
        with proxy.client() as client:
            client.sendall(b"%d at once" % number)  # before the proxy has heard of it, or reached the server
            with proxy.listener.accept()[0] as server:
                server.settimeout(SOON_S)
                assert read_exactly(server, len(b"%d at once" % number)) == b"%d at once" % number


@pytest.mark.parametrize("closes_first", ["client", "server"])
def test_a_half_close_is_passed_on_and_the_other_direction_lives(proxy: Wired, closes_first: str) -> None:
    with proxy.pair() as ends:
        first, second = ends if closes_first == "client" else ends[::-1]
        first.sendall(b"last words")
        first.shutdown(socket.SHUT_WR)
        assert read_to_end(second) == b"last words"
        second.sendall(b"answer")
        assert read_exactly(first, 6) == b"answer"
        second.close()
        assert read_to_end(first) == b""


@pytest.mark.parametrize("resets", ["client", "server"])
def test_a_reset_is_passed_on_as_a_reset(proxy: Wired, resets: str) -> None:
    with proxy.pair() as ends:
        one, other = ends if resets == "client" else ends[::-1]
        one.sendall(b"x")
        assert read_exactly(other, 1) == b"x"
        reset(one)
        with pytest.raises(ConnectionResetError):
            other.recv(1)


def test_what_was_sent_before_a_reset_still_arrives(proxy: Wired) -> None:
    fault = proxy.wire().hold(direction="up")
    with proxy.pair() as (client, server):
        client.sendall(b"before")
        assert is_silent(server)
        reset(client)
        assert is_silent(server)
        fault.heal()
        assert read_exactly(server, 6) == b"before"
        with pytest.raises(ConnectionResetError):
            server.recv(1)


def test_connections_are_counted(proxy: Wired) -> None:
    before = proxy.wire().tell()
    with proxy.pair() as (client, server):
        client.sendall(b"12345")
        server.sendall(read_exactly(server, 5)[:2])
        assert read_exactly(client, 2) == b"12"
        now = proxy.wire().tell()
        assert (now["accepted"], now["open"]) == (before["accepted"] + 1, 1)
        assert {way: now["bytes"][way] - before["bytes"][way] for way in ("up", "down")} == {"up": 5, "down": 2}
        assert (now["requests"]["chunk"], now["replies"]) == (before["requests"].get("chunk", 0) + 1, before["replies"] + 1)


@pytest.mark.parametrize("delay_s", [None, 0.2])
def test_a_reader_that_does_not_read_stops_its_writer(proxy: Wired, delay_s: float | None) -> None:
    process = psutil.Process(proxy.process.pid)
    if delay_s:
        proxy.wire().delay(delay_s)
    with proxy.pair() as (client, server):
        before = process.memory_info().rss
        client.setblocking(False)
        sent, block = 0, b"0123456789abcdef" * 4096
        while select.select([], [client], [], 1.0)[1]:
            with contextlib.suppress(BlockingIOError):
                sent += client.send(block)
            assert sent < 100 << 20, "it buffers without bound"
        assert process.memory_info().rss - before < 8 << 20
        if delay_s:
            proxy.wire().heal()
        client.setblocking(True)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(server) == (block * (sent // len(block) + 1))[:sent]


def test_a_server_that_is_not_there_resets_the_client(proxy: Wired) -> None:
    with pytest.raises(ConnectionResetError), proxy.client("nowhere") as client:
        client.recv(1)
    seen = Wire("nowhere", proxy.control)
    assert seen.tell()["unreachable"] == 1
    assert [event["what"] for event in seen.events()] == ["unreachable"]


def test_sockets_have_nodelay(proxy: Wired) -> None:
    """A request in two segments: with Nagle's algorithm and a delayed ACK it would take 40 ms."""
    times = []
    with proxy.pair() as (client, server):
        for _ in range(20):
            start = time.monotonic()
            client.sendall(b"a")
            assert read_exactly(server, 1) == b"a"
            client.sendall(b"b")
            assert read_exactly(server, 1) == b"b"
            times.append(time.monotonic() - start)
    assert min(times) < 0.02


# Faults in effect at once


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_delay_in_one_direction(proxy: Wired, direction: str) -> None:
    with proxy.pair() as (client, server):
        fault = proxy.wire().delay(0.1, direction=direction)  # type: ignore[arg-type]
        source, sink = (client, server) if direction == "up" else (server, client)
        start = time.monotonic()
        source.sendall(b"late")
        sink.sendall(b"prompt")
        assert read_exactly(source, 6) == b"prompt"
        assert read_exactly(sink, 4) == b"late"
        assert time.monotonic() - start >= 0.1
        assert fault.fired() == 1


def test_jitter_reorders_nothing(proxy: Wired) -> None:
    proxy.wire().delay(0.01, 0.01)
    with proxy.pair() as (client, server):
        sent = b""
        for n in range(100):
            sent += b"%d," % n
            client.sendall(b"%d," % n)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(server) == sent


def test_a_cut_resets_what_is_open_and_refuses_what_comes_until_it_is_healed(proxy: Wired) -> None:
    with proxy.pair() as (client, server):
        fault = proxy.wire().cut()
        for one in (client, server):
            with pytest.raises(ConnectionResetError):
                one.recv(1)
        with pytest.raises(ConnectionRefusedError):
            proxy.client()
        assert fault.fired() == 1
    fault.heal()
    with proxy.pair() as (client, server):
        client.sendall(b"again")
        assert read_exactly(server, 5) == b"again"
    assert [event["what"] for event in fault.events()] == ["armed", "cut", "healed"]


def test_no_connection_slips_through_a_cut(proxy: Wired, eventually: Callable[..., Any]) -> None:
    """Neither one that was just accepted, nor one whose way to the server is just being made."""
    wire = proxy.wire()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(60)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((HOST, proxy.ports["any"]))
        fault = wire.cut()
        for client in clients:
            client.settimeout(SOON_S)
            with pytest.raises((ConnectionResetError, ConnectionRefusedError, BrokenPipeError)):  # noqa: PT012 - whichever comes first
                client.sendall(b"x")
                client.recv(1)
        eventually(lambda: wire.tell()["open"] == 0, "all are gone")
        fault.heal()
        # Of what reached the server before the cut nothing is left either.
        while select.select([proxy.listener], [], [], 0.1)[0]:
            stack.enter_context(proxy.listener.accept()[0])


def test_who_gets_in_after_a_cut_stays_in(proxy: Wired) -> None:
    """A client that knocks all the time, also in the moment in which the link is healed."""
    wire = proxy.wire()
    for _ in range(5):
        wire.cut()

        def knock() -> bytes:
            while True:
                with contextlib.suppress(ConnectionRefusedError), proxy.client() as client:
                    return client.recv(5)

        with ThreadPoolExecutor(1) as threads:
            heard = threads.submit(knock)
            wire.heal()
            with proxy.listener.accept()[0] as server:
                server.sendall(b"hello")
                assert heard.result(SOON_S) == b"hello"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_half_open_drops_one_direction_silently_until_it_is_healed(proxy: Wired, direction: str) -> None:
    with proxy.pair() as (client, server):
        fault = proxy.wire().half_open(direction)  # type: ignore[arg-type]
        source, sink = (client, server) if direction == "up" else (server, client)
        source.sendall(b"lost")
        sink.sendall(b"heard")
        assert read_exactly(source, 5) == b"heard"
        source.shutdown(socket.SHUT_WR)
        assert is_silent(sink), "its end is dropped, too"
        assert fault.fired() == 1
        fault.heal()
        with pytest.raises(ConnectionResetError):  # a stream with a gap can never be used again
            sink.recv(1)


def test_a_stream_with_a_gap_never_goes_on(proxy: Wired) -> None:
    with proxy.pair() as (client, server):
        up, down = proxy.wire().half_open("up"), proxy.wire().half_open("down")
        client.sendall(b"lost")
        assert is_silent(server)
        down.heal()
        server.sendall(b"heard")
        assert read_exactly(client, 5) == b"heard", "nothing was lost on this way"
        proxy.wire().half_open("down")
        up.heal()
        with pytest.raises(ConnectionResetError):
            server.recv(1)


def test_a_connection_that_lost_nothing_survives_a_half_open_link(proxy: Wired) -> None:
    with proxy.pair() as (client, server):
        fault = proxy.wire().half_open("up")
        fault.heal()
        client.sendall(b"alive")
        assert read_exactly(server, 5) == b"alive"


def test_a_black_hole_takes_everything_and_gives_nothing(proxy: Wired) -> None:
    with proxy.pair() as (client, server):
        fault = proxy.wire().black_hole()
        client.sendall(b"x" * 3_000_000)  # it is read: no buffer holds so much
        server.sendall(b"y")
        with proxy.client() as late, proxy.client() as shy:
            late.sendall(b"hello?")
            assert is_silent(client)
            assert is_silent(server)
            assert is_silent(late, 0)
            assert is_silent(shy, 0)
            assert is_silent(proxy.listener, 0)
            assert fault.fired() >= 3
            fault.heal()
            for one in (client, late, shy):  # the shy one has lost nothing, but has never reached the server
                with pytest.raises(ConnectionResetError):
                    one.recv(1)


def test_a_held_link_loses_nothing(proxy: Wired) -> None:
    with proxy.pair() as (client, server):
        fault = proxy.wire().hold(direction="both")
        client.sendall(b"one")
        client.shutdown(socket.SHUT_WR)
        server.sendall(b"two")
        assert is_silent(client)
        assert is_silent(server, 0)
        fault.heal()
        assert read_to_end(server) == b"one"
        assert read_exactly(client, 3) == b"two"
        assert fault.fired() == 2


def test_a_bandwidth_is_shared_by_all_connections(proxy: Wired) -> None:
    proxy.wire().bandwidth(200_000, direction="up")
    with proxy.pair() as (first, first_end), proxy.pair() as (second, second_end):
        start = time.monotonic()
        for one in (first, second):
            one.sendall(b"z" * 30_000)
            one.shutdown(socket.SHUT_WR)
        ends = {}

        def read(name: str, end: socket.socket) -> None:
            assert len(read_to_end(end)) == 30_000
            ends[name] = time.monotonic() - start

        readers = [threading.Thread(target=read, args=(str(n), end)) for n, end in enumerate((first_end, second_end))]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(SOON_S)
    assert len(ends) == 2
    assert max(ends.values()) >= 0.25
    assert min(ends.values()) > 0.2, "the second waited until the first was through"


way = st.sampled_from(["up", "down"])
fault_specs = st.one_of(
    st.fixed_dictionaries({"kind": st.just("delay"), "seconds": st.just(0.005), "jitter_s": st.just(0.005), "direction": way}),
    st.fixed_dictionaries({"kind": st.sampled_from(["hold", "half_open"]), "direction": way}),
    st.fixed_dictionaries({"kind": st.sampled_from(["cut", "black_hole"])}),
    st.fixed_dictionaries({"kind": st.just("bandwidth"), "bytes_per_s": st.just(10_000_000)}),
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["cut", "black_hole"]), "nth": st.integers(1, 9), "scope": st.sampled_from(["link", "connection"])}
    ),
    st.fixed_dictionaries({"kind": st.sampled_from(["delay", "hold", "lose_reply"]), "nth": st.integers(1, 9)}),
)


@pytest.mark.parametrize("protocol", ["any", "mysql", "redis"])
@LIVELY
@given(up=chunks, down=chunks, specs=st.lists(st.one_of(st.none(), fault_specs), max_size=6))
def test_whatever_the_faults_what_arrives_is_how_it_began(
    proxy: Wired, protocol: str, up: list[bytes], down: list[bytes], specs: list[dict[str, Any] | None]
) -> None:
    """Armed and healed (None) while bytes flow: no end is told that was not reached in order, and nothing hangs once all is healed."""
    wire = proxy.wire(protocol)
    wire.heal()

    def send(one: socket.socket, parts: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            for part in parts:
                one.sendall(part)
            one.shutdown(socket.SHUT_WR)

    def read(one: socket.socket) -> bytes:
        data = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while part := one.recv(1 << 16):
                data += part
        return bytes(data)

    with proxy.pair(protocol) as (client, server), ThreadPoolExecutor(4) as threads:
        for one, parts in ((client, up), (server, down)):
            threads.submit(send, one, parts)
        heard = threads.submit(read, server), threads.submit(read, client)
        for spec in specs:
            if spec is None:
                wire.heal()
            else:
                wire._arm(**spec)
        wire.heal()
        for reader, parts in zip(heard, (up, down), strict=True):
            assert b"".join(parts).startswith(reader.result(SOON_S))
        lossless = all(spec is None or spec["kind"] in {"delay", "hold", "bandwidth"} for spec in specs)
        if lossless:
            assert (heard[0].result(), heard[1].result()) == (b"".join(up), b"".join(down))


# What only a look inside can bring about


def open_link(stack: contextlib.ExitStack) -> tuple[Link, socket.socket]:
    """A link in this process, and the socket it leads to. Both end with the stack."""
    held = Ports()
    stack.callback(held.release)
    listener = stack.enter_context(socket.create_server((HOST, 0)))
    listener.setblocking(False)
    link = Link("inside", held.take(), (HOST, listener.getsockname()[1]), "any", HOST, Ledger(), random.Random(0))
    link.listen()
    return link, listener


async def close_link(link: Link) -> None:
    link.arm({"kind": "cut"})
    while link.connections:
        await asyncio.sleep(0)


@pytest.mark.parametrize("turns", range(6))
def test_a_cut_catches_a_connection_in_whatever_turn_of_the_loop_it_comes(turns: int) -> None:
    async def scenario() -> None:
        with contextlib.ExitStack() as stack:
            link, _ = open_link(stack)
            client = stack.enter_context(socket.create_connection((HOST, link.port)))
            for _ in range(turns):
                await asyncio.sleep(0)
            await close_link(link)
            client.setblocking(False)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(link.loop.sock_recv(client, 1), SOON_S)

    asyncio.run(scenario())


def test_a_reset_behind_a_full_buffer_is_passed_on_when_the_server_reads() -> None:
    async def scenario() -> None:
        wrong: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
        with contextlib.ExitStack() as stack:
            link, listener = open_link(stack)
            client = stack.enter_context(socket.create_connection((HOST, link.port)))
            client.setblocking(False)
            server, _ = await asyncio.wait_for(link.loop.sock_accept(listener), SOON_S)
            stack.enter_context(server)

            async def send(size: int) -> None:
                before = link.volume["up"]
                await link.loop.sock_sendall(client, b"x" * size)
                while link.volume["up"] < before + size:
                    await asyncio.sleep(0)

            (connection,) = link.connections
            await send(1)
            assert connection.up.sink is not None
            while not connection.up.sink.get_write_buffer_size():  # the server does not read: what the kernel takes is full first
                await send(8192)
            link.arm({"kind": "hold", "direction": "up"})
            await send(150_000)
            reset(client)
            while not connection.client.is_lost:
                await asyncio.sleep(0)
            link.heal(None)
            with pytest.raises(ConnectionResetError):  # noqa: PT012 - bytes come first
                while await asyncio.wait_for(link.loop.sock_recv(server, 1 << 16), SOON_S):
                    pass
            await close_link(link)
        assert wrong == []

    asyncio.run(scenario())


# Faults that wait for a request


def test_a_chosen_statement_is_delayed_and_no_other(proxy: Wired) -> None:
    fault = proxy.wire("mysql").delay(0.15, when="^QUERY UPDATE", direction="up")
    with proxy.pair("mysql") as (client, server):
        for text, is_late in ((b"SELECT 1", False), (b"UPDATE shifts", True), (b"COMMIT", False)):
            start = time.monotonic()
            packet = mysql(text)
            client.sendall(packet[:7])  # a statement in two segments
            client.sendall(packet[7:])
            assert read_exactly(server, len(packet)) == packet
            assert time.monotonic() - start >= (0.15 if is_late else 0)
            server.sendall(OK)
            assert read_exactly(client, len(OK)) == OK
    told = fault.tell()
    assert [told[key] for key in ("kind", "seen", "taken", "fired", "is_healed")] == ["delay", 1, 1, 1, False]
    (armed, event) = fault.events()
    assert (event["what"], event["message"]) == ("delay", "QUERY UPDATE shifts")
    assert armed["at_ns"] < event["at_ns"] < time.monotonic_ns()


def test_the_reply_to_a_chosen_statement_is_delayed(proxy: Wired) -> None:
    fault = proxy.wire("mysql").delay(0.15, when="UPDATE", direction="down", times=1)
    with proxy.pair("mysql") as (client, server):
        for is_late in (True, False):
            client.sendall(mysql(b"UPDATE t"))
            read_exactly(server, len(mysql(b"UPDATE t")))
            start = time.monotonic()
            server.sendall(OK)
            read_exactly(client, len(OK))
            assert time.monotonic() - start >= (0.15 if is_late else 0)
    assert fault.fired() == 1


def test_a_barrier_holds_matching_statements_until_all_have_come(proxy: Wired) -> None:
    fault = proxy.wire("mysql").hold(when="^QUERY COMMIT", times=2)
    with proxy.pair("mysql") as (one, one_end), proxy.pair("mysql") as (two, two_end):
        one.sendall(mysql(b"COMMIT") + mysql(b"SELECT 1"))
        two.sendall(mysql(b"SELECT 2"))
        assert read_exactly(two_end, len(mysql(b"SELECT 2"))) == mysql(b"SELECT 2")
        assert is_silent(one_end)
        two.sendall(mysql(b"COMMIT"))
        assert is_silent(two_end)
        assert fault.fired() == 2
        with proxy.pair("mysql") as (three, three_end):
            three.sendall(mysql(b"COMMIT"))
            assert read_exactly(three_end, len(mysql(b"COMMIT"))) == mysql(b"COMMIT"), "it was for two"
        fault.heal()
        assert read_exactly(one_end, len(mysql(b"COMMIT") + mysql(b"SELECT 1"))) == mysql(b"COMMIT") + mysql(b"SELECT 1")
        assert read_exactly(two_end, len(mysql(b"COMMIT"))) == mysql(b"COMMIT")


def test_the_reply_to_the_nth_produce_is_swallowed_and_what_came_before_it_arrives(proxy: Wired) -> None:
    fault = proxy.wire("kafka").lose_reply(when="^Produce", nth=2)
    with proxy.pair("kafka") as (client, server):
        asked = kafka(0, 1) + kafka(3, 2) + kafka(0, 3) + kafka(0, 4)
        client.sendall(asked)
        assert read_exactly(server, len(asked)) == asked, "all requests reach the server"
        assert fault.tell()["fired"] == 0
        assert fault.tell()["taken"] == 1
        server.sendall(kafka_reply(1) + kafka_reply(2) + kafka_reply(3, b"f"))
        assert read_to_end(client) == kafka_reply(1) + kafka_reply(2)
        with pytest.raises(ConnectionResetError):
            server.recv(1)
    assert fault.fired() == 1
    assert [event["what"] for event in fault.events()] == ["armed", "awaits reply", "lose_reply"]
    with proxy.pair("kafka") as (client, server):
        client.sendall(kafka(0, 1))
        read_exactly(server, len(kafka(0, 1)))
        server.sendall(kafka_reply(1))
        assert read_exactly(client, len(kafka_reply(1))) == kafka_reply(1), "once is once"


def test_the_reply_of_one_pipelined_command_is_lost(proxy: Wired) -> None:
    proxy.wire("redis").lose_reply(when="^SET lock:1")
    with proxy.pair("redis") as (client, server):
        asked = b"PING\r\n*3\r\n$3\r\nset\r\n$6\r\nlock:1\r\n$1\r\nx\r\nPING\r\n"
        client.sendall(asked)
        assert read_exactly(server, len(asked)) == asked
        server.sendall(b"+PONG\r\n+OK\r\n+PONG\r\n")
        assert read_to_end(client) == b"+PONG\r\n"


def test_the_answer_to_a_post_is_lost_but_not_its_interim_answer(proxy: Wired) -> None:
    fault = proxy.wire("http").lose_reply(when="^POST /charge")
    head, body = b"POST /charges HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", b"body"
    with proxy.pair("http") as (client, server):
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read_exactly(server, 18)
        server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert read_exactly(client, 27)
        client.sendall(head)
        assert read_exactly(server, len(head)) == head, "nobody waits for a body that waits for an answer"
        server.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert read_exactly(client, 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert read_exactly(server, 4) == body
        assert fault.fired() == 0
        server.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        assert read_to_end(client) == b""
    assert fault.fired() == 1


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        ({}, [1]),
        ({"nth": 3}, [3]),
        ({"when": "QUERY UPDATE"}, [2]),
        ({"when": "QUERY UPDATE", "nth": 2}, [4]),
        ({"when": "QUERY UPDATE", "times": 3}, [2, 4, 6]),
        ({"nth": 4, "times": 2}, [4, 5]),
        ({"every": 3}, [3, 6, 9]),
        ({"every": 4, "nth": 2}, [2, 6, 10]),
        ({"every": 2, "times": 2}, [2, 4]),
    ],
)
def test_which_requests_a_fault_takes(spec: dict[str, Any], taken: list[int]) -> None:
    fault = read_fault(1, {"kind": "lose_reply", "link": "mysql", **spec})
    texts = [b"QUERY UPDATE t" if number % 2 == 0 else b"QUERY SELECT 1" for number in range(1, 11)]
    assert [number for number, text in enumerate(texts, 1) if fault.takes(Message("QUERY", text, NEXT))] == taken


def test_one_connection_is_cut_before_the_request_reaches_the_server(proxy: Wired) -> None:
    fault = proxy.wire("mysql").cut(when="COMMIT", scope="connection")
    with proxy.pair("mysql") as (one, one_end), proxy.pair("mysql") as (two, two_end):
        one.sendall(mysql(b"COMMIT"))
        for end in (one, one_end):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        two.sendall(mysql(b"COMMIT"))
        assert read_exactly(two_end, len(mysql(b"COMMIT"))) == mysql(b"COMMIT")
    assert fault.fired() == 1


def test_a_link_is_cut_at_the_nth_request(proxy: Wired) -> None:
    fault = proxy.wire("mysql").cut(nth=3)
    with proxy.pair("mysql") as (one, one_end), proxy.pair("mysql") as (two, _):
        one.sendall(mysql(b"1") + mysql(b"2"))
        assert read_exactly(one_end, 2 * len(mysql(b"1"))) == mysql(b"1") + mysql(b"2")
        two.sendall(mysql(b"3"))
        for end in (one, two, one_end):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        with pytest.raises(ConnectionRefusedError):
            proxy.client("mysql")
    assert fault.fired() == 2
    assert [event["what"] for event in fault.events()] == ["armed", "triggered", "cut"]


def test_what_came_before_in_the_same_segment_is_not_cut(proxy: Wired) -> None:
    proxy.wire("mysql").cut(when="COMMIT", scope="connection")
    with proxy.pair("mysql") as (client, server):
        before = mysql(b"BEGIN") + mysql(b"UPDATE t")
        client.sendall(before + mysql(b"COMMIT") + mysql(b"SELECT 1"))
        assert read_exactly(server, len(before)) == before
        with pytest.raises(ConnectionResetError):
            server.recv(1)


def test_one_connection_becomes_half_open_at_a_request_which_is_still_served(proxy: Wired) -> None:
    fault = proxy.wire("mysql").half_open("down", when="COMMIT", scope="connection")
    with proxy.pair("mysql") as (one, one_end), proxy.pair("mysql") as (two, two_end):
        one.sendall(mysql(b"COMMIT"))
        assert read_exactly(one_end, len(mysql(b"COMMIT"))) == mysql(b"COMMIT")
        one_end.sendall(OK)
        two_end.sendall(OK)
        assert read_exactly(two, len(OK)) == OK
        assert is_silent(one)
        assert fault.fired() == 1
        fault.heal()
        with pytest.raises(ConnectionResetError):
            one.recv(1)


def test_a_connection_that_cannot_be_split_is_counted_and_served(proxy: Wired) -> None:
    before = proxy.wire("kafka").tell()["unframed"]
    with proxy.pair("kafka") as (client, server):
        client.sendall(b"\xff\xff\xff\xff and more")
        assert read_exactly(server, 13) == b"\xff\xff\xff\xff and more"
    assert proxy.wire("kafka").tell()["unframed"] == before + 1
    assert proxy.wire("kafka").events()[-1]["what"] == "unframed"


# Control


def test_a_fault_that_cannot_be_is_told_with_what_may_be(proxy: Wired) -> None:
    wire = proxy.wire()
    for spec, told in (
        ({"kind": "slow"}, r"no fault is called 'slow'; there are delay, hold"),
        ({"kind": "cut", "seconds": 1}, r"cut takes no seconds; it takes every, nth, scope, when"),
        ({"kind": "delay", "seconds": -1}, r"seconds of delay is -1; expected a number, not negative"),
        ({"kind": "delay", "seconds": 1, "direction": "left"}, r"direction of delay is 'left'; expected up, down or both"),
        ({"kind": "delay", "when": "("}, r"`when` of delay is no regular expression"),
        ({"kind": "half_open"}, r"half_open needs the direction"),
        ({"kind": "bandwidth"}, r"bandwidth needs bytes_per_s"),
        ({"kind": "lose_reply", "nth": 0}, r"nth, every and times count from 1"),
        ({"kind": "cut", "scope": "connection"}, r"cut of one connection needs `when`, `nth` or `every`"),
        ({"kind": "cut", "scope": "world"}, r"scope of cut is 'world'; expected link or connection"),
    ):
        with pytest.raises(LabError, match=told):
            wire._arm(**spec)
    with pytest.raises(LabError, match=r"no link is called 'mars'; there are kafka, mysql"):
        Wire("mars", proxy.control).cut()
    with pytest.raises(LabError, match=r"no wire is called 'mars'"):
        Wire("mars", proxy.control).tell()
    with pytest.raises(LabError, match=r"the link any has no fault 4000"):
        proxy.control.ask("POST", "/heal", {"link": "any", "fault": 4000})


def test_the_control_is_for_the_kit_alone(proxy: Wired) -> None:
    port = proxy.control._port
    for token in ("", "Bearer ", TOKEN, f"Bearer {TOKEN}x", f"bearer {TOKEN}"):
        for method, path in (("GET", "/links"), ("POST", "/arm"), ("GET", "/what")):
            connection = http.client.HTTPConnection(HOST, port, timeout=SOON_S)
            connection.request(method, path, body="{}", headers={"Authorization": token})
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())) == (403, {"detail": "not for you"})
            connection.close()
    with pytest.raises(LabError, match="nothing is at GET /what"):
        proxy.control.ask("GET", "/what")
