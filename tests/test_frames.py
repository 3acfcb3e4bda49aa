"""Where messages end, whatever the chunks they come in, and what each is called."""

import contextlib
import struct
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.proxy.frames import LOOK, NEXT, NO_REPLY, PROTOCOLS, Message, Parser, UnframedError, open_frames

proven = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def walk(parser: Parser, chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The pieces of messages, and whether each ends one."""
    for chunk in chunks:
        at = 0
        while at < len(chunk):
            start = at
            at, ends = parser.consume(chunk, at)
            assert at > start, "it takes at least a byte"
            yield chunk[start:at], ends


def split(parser: Parser, chunks: Iterable[bytes]) -> tuple[list[bytes], bytes]:
    """The messages, and the beginning of one that has not ended."""
    messages, current = [], b""
    for piece, ends in walk(parser, chunks):
        current += piece
        if ends:
            messages.append(current)
            current = b""
    return messages, current


def read_all(parser: Parser, *chunks: bytes) -> list[Message]:
    """Every message of a stream."""
    messages, current = [], b""
    for piece, ends in walk(parser, chunks):
        current += piece
        if ends:
            messages.append(parser.read(current[:LOOK]))
            current = b""
    return messages


def packet(body: bytes, sequence: int = 0) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([sequence]) + body


def kafka(api: int, version: int, correlation: int, rest: bytes) -> bytes:
    body = struct.pack(">hhI", api, version, correlation) + rest
    return len(body).to_bytes(4, "big") + body


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts if part) + b"0\r\nTrailer: yes\r\n\r\n"


blobs = st.binary(max_size=60)
resp_values = st.recursive(
    st.one_of(
        st.sampled_from([b"+OK\r\n", b"-ERR no\r\n", b":12\r\n", b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"(123\r\n"]),
        blobs.map(lambda text: b"$%d\r\n%s\r\n" % (len(text), text)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda them: b"*%d\r\n" % len(them) + b"".join(them)),
        st.lists(st.tuples(inner, inner), max_size=3).map(lambda them: b"%%%d\r\n" % len(them) + b"".join(key + value for key, value in them)),
    ),
    max_leaves=6,
)
requests = {
    "kafka": st.builds(kafka, st.integers(0, 80), st.integers(0, 20), st.integers(0, 2**32 - 1), blobs),
    "mysql": st.builds(packet, st.one_of(blobs, st.sampled_from([b"\x03" + b"x" * 300])), st.integers(0, 3)),
    "redis": st.one_of(
        st.lists(blobs, min_size=1, max_size=4).map(lambda words: command(*words)), st.sampled_from([b"PING\r\n", b"\r\n", b"GET k\n"])
    ),
    "http": st.one_of(
        st.just(b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n"),
        blobs.map(lambda body: b"POST /a HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)),
        st.lists(blobs, max_size=3).map(lambda parts: b"PUT /a HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n" + chunked(parts)),
    ),
}


@pytest.mark.parametrize("protocol", requests)
@proven
@given(data=st.data())
def test_the_chunks_do_not_matter(protocol: str, data: st.DataObject) -> None:
    sent = data.draw(st.lists(requests[protocol], max_size=6))
    stream = b"".join(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    up, _ = open_frames(protocol)
    assert split(up, chunks) == (sent, b"")


@proven
@given(values=st.lists(resp_values, max_size=5), size=st.integers(1, 9))
def test_nested_replies_of_redis_are_one_message_each(values: list[bytes], size: int) -> None:
    stream = b"".join(values)
    _, down = open_frames("redis")
    assert split(down, [stream[at : at + size] for at in range(0, len(stream), size)]) == (values, b"")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("side", [0, 1])
@proven
@given(chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=20))
def test_nonsense_is_split_somehow_or_refused_and_never_lost(protocol: str, side: int, chunks: list[bytes]) -> None:
    parser = open_frames(protocol)[side]
    seen = b""
    with contextlib.suppress(UnframedError):
        for piece, _ in walk(parser, chunks):
            seen += piece
        assert seen == b"".join(chunks)
    with contextlib.suppress(UnframedError):
        read_all(open_frames(protocol)[side], *chunks)


def test_kafka_requests_are_told_by_api_and_replies_by_correlation_id() -> None:
    up, down = open_frames("kafka")
    (produce, other) = read_all(up, kafka(0, 11, 7, b"\x00\x02cl orders") + kafka(99, 0, 0x80000001, b""))
    assert produce == Message("Produce", b"Produce v11 \x00\x02cl orders", 7)
    assert (other.kind, other.key) == ("Api99", 0x80000001)
    assert [reply.key for reply in read_all(down, b"\x00\x00\x00\x06\x80\x00\x00\x01ok" + b"\x00\x00\x00\x04\x00\x00\x00\x07")] == [0x80000001, 7]
    assert down.is_enough(bytearray(8))


def test_mysql_statements_are_told_by_their_text() -> None:
    up, _ = open_frames("mysql")
    login = packet(b"\x85\xa6\x3f\x20" + b"\0" * 40, 1)
    seen = read_all(up, login + packet(b"\x03SELECT 1") + packet(b"\x03\x00\x01SELECT 2") + packet(b"\x0e") + packet(b"\x01"))
    assert [(one.text, one.is_request) for one in seen] == [
        (b"LOGIN", False),
        (b"QUERY SELECT 1", True),
        (b"QUERY SELECT 2", True),
        (b"PING ", True),
        (b"QUIT ", False),
    ]


def test_an_executed_statement_has_the_text_that_was_prepared() -> None:
    up, down = open_frames("mysql")
    assert read_all(up, packet(b"\x16SELECT ?") + packet(b"\x16UPDATE t"))[1].text == b"PREPARE UPDATE t"
    execute_last = packet(b"\x17\xff\xff\xff\xff\0\1\0\0\0")
    assert read_all(up, execute_last)[0].text == b"EXECUTE UPDATE t", "MariaDB's shortcut, before the answer came"
    ok = b"\0" + (9).to_bytes(4, "little") + b"\0" * 7
    (reply, _) = read_all(down, packet(ok, 1) + packet(b"\xff\x01\x00no", 1))
    assert reply.key == NEXT
    execute = packet(b"\x17" + (9).to_bytes(4, "little") + b"\0\1\0\0\0")
    close = packet(b"\x19" + (9).to_bytes(4, "little"))
    assert [one.text for one in read_all(up, execute + close + execute)] == [b"EXECUTE SELECT ?", b"CLOSE SELECT ?", b"EXECUTE "]


def test_a_mysql_message_may_span_packets() -> None:
    up, _ = open_frames("mysql")
    long = packet(b"\x03" + b"x" * 0xFFFFFE) + packet(b"y", 1)
    assert split(up, [long, packet(b"\x0e")])[0] == [long, packet(b"\x0e")]
    assert split(up, [packet(b"\x03" + b"x" * 0xFFFFFE) + packet(b"", 1)])[0] == [packet(b"\x03" + b"x" * 0xFFFFFE) + packet(b"", 1)]


@pytest.mark.parametrize("flags", [1 << 11, 1 << 5, 1 << 26], ids=["tls", "compressed", "zstd"])
def test_a_mysql_client_that_will_not_be_read_is_told(flags: int) -> None:
    up, _ = open_frames("mysql")
    with pytest.raises(UnframedError, match="TLS or compression"):
        read_all(up, packet(flags.to_bytes(4, "little") + b"\0" * 28, 1))


@proven
@given(words=st.lists(blobs, min_size=1, max_size=4), size=st.integers(1, 30))
def test_a_command_of_redis_is_the_same_in_one_piece_and_in_many(words: list[bytes], size: int) -> None:
    stream = command(*words) * 2
    chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert read_all(open_frames("redis")[0], stream) == read_all(open_frames("redis")[0], *chunks)


def test_redis_commands_are_told_by_their_words_and_replies_by_their_place() -> None:
    up, down = open_frames("redis")
    seen = read_all(up, command(b"set", b"lock:1", b"a b") + b"ping\r\n\r\n" + command(b"AUTH", b"app", b"secret"))
    assert [(one.kind, one.text, one.key) for one in seen] == [
        ("SET", b"SET lock:1 a b", 1),
        ("PING", b"PING", 2),
        ("empty", b"\r\n", NO_REPLY),
        ("AUTH", b"AUTH", 3),
    ]
    assert [reply.key for reply in read_all(down, b"+OK\r\n>2\r\n+message\r\n+hi\r\n*1\r\n$3\r\nyes\r\n+OK\r\n")] == [1, NO_REPLY, 2, 3]


def test_http_replies_are_told_by_their_place_and_interim_ones_do_not_count() -> None:
    up, down = open_frames("http")
    asked = [b"HEAD /a HTTP/1.1\r\n\r\n", b"POST /b HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", b"GET /c HTTP/1.1\r\n\r\n"]
    assert [(one.kind, one.key) for one in read_all(up, b"".join(asked))] == [("HEAD", 1), ("POST", 2), ("GET", 3)]
    assert up.is_enough(bytearray(asked[1][:-2])), "the client waits for an answer before it sends the body"
    assert not up.is_enough(bytearray(asked[0][:-2]))
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked([b"abc", b"d"]),
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 900\r\n\r\n",
    ]
    messages, rest = split(down, [b"".join(answers) + b"HTTP/1.1 200 OK\r\n\r\nuntil the end"])
    assert (messages, rest) == (answers, b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    up, down = open_frames("http")
    read_all(up, *asked)
    assert [message.key for message in read_all(down, b"".join(answers))] == [1, NO_REPLY, 2, 3]


@pytest.mark.parametrize(
    ("protocol", "side", "data"),
    [
        ("kafka", 0, b"GET / HTTP/1.1\r\n\r\n"),
        ("kafka", 1, b"\xff\xff\xff\xff"),
        ("redis", 1, b"HTTP/1.1 200 OK\r\n"),
        ("redis", 1, b"*?\r\n"),
        ("redis", 0, b"*1\r\n%-2\r\n"),
        ("redis", 0, b"x" * 70_000),
        ("redis", 0, b"*" + b"9" * 5000 + b"\r\n"),
        ("redis", 0, b"*1\r\n$" + b"9" * 5000 + b"\r\n"),
        ("http", 0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("http", 0, b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n"),
        ("http", 0, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n"),
        ("http", 0, b"GET / HTTP/1.1\r\n" + b"x" * 70_000),
        ("http", 1, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ],
)
def test_what_cannot_be_split_is_said(protocol: str, side: int, data: bytes) -> None:
    with pytest.raises(UnframedError):
        split(open_frames(protocol)[side], [data])
