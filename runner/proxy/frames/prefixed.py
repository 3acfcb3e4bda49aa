"""Messages that begin with their length: Kafka's and MySQL's."""

import struct
from collections import deque

from runner.proxy.frames.message import FRAME_LIMIT, NEXT, Message, UnframedError

KAFKA_APIS = {
    0: "Produce",
    1: "Fetch",
    2: "ListOffsets",
    3: "Metadata",
    8: "OffsetCommit",
    9: "OffsetFetch",
    10: "FindCoordinator",
    11: "JoinGroup",
    12: "Heartbeat",
    13: "LeaveGroup",
    14: "SyncGroup",
    18: "ApiVersions",
    19: "CreateTopics",
    22: "InitProducerId",
    24: "AddPartitionsToTxn",
    25: "AddOffsetsToTxn",
    26: "EndTxn",
    28: "TxnOffsetCommit",
    68: "ConsumerGroupHeartbeat",
}
MYSQL_COMMANDS = {
    0x01: "QUIT",
    0x02: "INIT_DB",
    0x03: "QUERY",
    0x0E: "PING",
    0x11: "CHANGE_USER",
    0x16: "PREPARE",
    0x17: "EXECUTE",
    0x18: "SEND_LONG_DATA",
    0x19: "CLOSE",
    0x1A: "RESET",
    0x1C: "FETCH",
    0x1F: "RESET_CONNECTION",
    0xFA: "EXECUTE",
}
MYSQL_SILENT = {"QUIT", "SEND_LONG_DATA", "CLOSE"}
MYSQL_SSL, MYSQL_COMPRESSED = 1 << 11, (1 << 5) | (1 << 26)
MYSQL_FULL = 0xFFFFFF  # a packet of this size goes on in the next one
MYSQL_LAST_PREPARED = 0xFFFFFFFF  # MariaDB: execute what was prepared last
STATEMENTS_KEPT = 4096


class Prefixed:
    """Four bytes of header, of which `_size` makes the bytes that follow."""

    def __init__(self, *, is_up: bool) -> None:
        self._is_up = is_up
        self._header = bytearray()
        self._left = 0

    def consume(self, data: bytes, at: int) -> tuple[int, bool]:
        """By the length in the header."""
        if not self._left:
            took = data[at : at + 4 - len(self._header)]
            self._header += took
            at += len(took)
            if len(self._header) < 4:
                return at, False
            self._left = self._size(bytes(self._header))
            self._header.clear()
        step = min(self._left, len(data) - at)
        self._left -= step
        return at + step, not self._left and self._is_whole()

    def _size(self, header: bytes) -> int:
        raise NotImplementedError

    def _is_whole(self) -> bool:
        return True


class Kafka(Prefixed):
    """Source: the Kafka protocol guide: int32 size, then api_key, api_version, correlation_id; in a response the correlation_id."""

    def _size(self, header: bytes) -> int:
        size = int.from_bytes(header, "big")
        if not 4 <= size <= FRAME_LIMIT:
            raise UnframedError(f"a Kafka message of {size} bytes")
        return size

    def is_enough(self, head: bytearray) -> bool:
        """A reply is known by its correlation id."""
        return not self._is_up and len(head) >= 8

    def read(self, head: bytes) -> Message:
        """`Produce v11 ...` and the request as it stands from its client id on."""
        if not self._is_up:
            return Message("reply", head, int.from_bytes(head[4:8], "big"))
        if len(head) < 12:
            raise UnframedError("a Kafka request without a header")
        api, version, correlation = struct.unpack_from(">hhI", head, 4)
        kind = KAFKA_APIS.get(api, f"Api{api}")
        return Message(kind, f"{kind} v{version} ".encode() + head[12:], correlation)


class MysqlTalk:
    """What both directions of a MySQL connection know: which texts were prepared, so that an EXECUTE can be told by its text."""

    def __init__(self) -> None:
        self.has_begun = False
        self.preparing: deque[bytes] = deque()
        self.statements: dict[int, bytes] = {}

    def text_of(self, number: int) -> bytes:
        """The text of a prepared statement; empty when it is not known."""
        if number != MYSQL_LAST_PREPARED:
            return self.statements.get(number, b"")
        return self.preparing[-1] if self.preparing else next(reversed(self.statements.values()), b"")

    def note_answer(self, body: bytes) -> None:
        """The answer to a PREPARE: OK with the statement's number, or an error."""
        text = self.preparing.popleft()
        if body[0] == 0:
            self.statements[int.from_bytes(body[1:5], "little")] = text
            if len(self.statements) > STATEMENTS_KEPT:
                del self.statements[next(iter(self.statements))]


class Mysql(Prefixed):
    """Source: the MySQL client/server protocol: 3 bytes of length, 1 of sequence, which is 0 in a command; then the command's byte."""

    def __init__(self, talk: MysqlTalk, *, is_up: bool) -> None:
        super().__init__(is_up=is_up)
        self._talk = talk
        self._last = 0

    def _size(self, header: bytes) -> int:
        self._last = int.from_bytes(header[:3], "little")
        return self._last

    def _is_whole(self) -> bool:
        return self._last != MYSQL_FULL

    def is_enough(self, head: bytearray) -> bool:
        """A reply is whatever comes next; nine bytes hold the number of a prepared statement."""
        return not self._is_up and len(head) >= 9

    def read(self, head: bytes) -> Message:
        """`QUERY UPDATE ...`, `EXECUTE UPDATE ...` (the text that was prepared), `PING`."""
        body = head[4:]
        if not self._is_up:
            if self._talk.preparing and body[:1] in {b"\x00", b"\xff"}:
                self._talk.note_answer(body)
            return Message("reply", body, NEXT)
        if head[3] != 0 or not body:  # login, authentication, a file of LOAD DATA LOCAL
            self._begin(body)
            return Message("LOGIN", b"LOGIN", NEXT, is_request=False)
        kind = MYSQL_COMMANDS.get(body[0], f"COMMAND_{body[0]}")
        return Message(kind, kind.encode() + b" " + self._text(kind, body[1:]), NEXT, is_request=kind not in MYSQL_SILENT)

    def _begin(self, body: bytes) -> None:
        if self._talk.has_begun:
            return
        self._talk.has_begun = True
        flags = int.from_bytes(body[:4], "little")
        if flags & MYSQL_COMPRESSED or (flags & MYSQL_SSL and len(body) == 32):
            raise UnframedError("the MySQL client switches to TLS or compression")

    def _text(self, kind: str, text: bytes) -> bytes:
        if kind == "PREPARE":
            self._talk.preparing.append(text)
        elif kind == "QUERY" and text[:2] == b"\x00\x01":  # query attributes, none given (MySQL 8.0.23 and later)
            return text[2:]
        elif kind == "EXECUTE":
            return self._talk.text_of(int.from_bytes(text[:4], "little"))
        elif kind == "CLOSE":
            return self._talk.statements.pop(int.from_bytes(text[:4], "little"), b"")
        elif kind == "CHANGE_USER":
            return b""  # it holds a password's hash
        return text
