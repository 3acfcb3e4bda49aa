"""Messages of HTTP/1.1."""

from collections import deque
from collections.abc import Callable

from runner.proxy.frames.message import LINE_LIMIT, NO_REPLY, Message, UnframedError

HEAD_END = b"\r\n\r\n"


class HttpTalk:
    """What both directions of an HTTP connection know: the methods whose answers are still to come."""

    def __init__(self) -> None:
        self.methods: deque[str] = deque()


class Http:
    """Source: RFC 9112, sections 2, 6 and 7. HTTP/2, tunnels and upgraded connections are left unsplit."""

    def __init__(self, talk: HttpTalk, *, is_up: bool) -> None:
        self._talk = talk
        self._is_up = is_up
        self._line = bytearray()  # of the head, or of a line in a chunked body
        self._take: Callable[[bytes, int], tuple[int, bool]] = self._take_head
        self._left = 0
        self._count = 0

    def consume(self, data: bytes, at: int) -> tuple[int, bool]:
        """The head, then the body as the head says."""
        ended = False
        while at < len(data) and not ended:
            at, ended = self._take(data, at)
        return at, ended

    def _take_head(self, data: bytes, at: int) -> tuple[int, bool]:
        before = len(self._line)
        self._line += data[at : at + LINE_LIMIT + 1]
        end = self._line.find(HEAD_END, max(0, before - 3))
        if end < 0:
            if len(self._line) > LINE_LIMIT:
                raise UnframedError(f"an HTTP head of more than {LINE_LIMIT} bytes")
            return len(data), False
        head = bytes(self._line[: end + 4])
        self._line.clear()
        return at + len(head) - before, self._plan(head)

    def _plan(self, head: bytes) -> bool:
        """Choose how the body is read; whether there is none."""
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        fields = {name.strip().lower(): value.strip().lower() for name, _, value in (line.partition(":") for line in lines)}
        words = first.split(" ")
        if len(words) < 2 or not words[-1 if self._is_up else 0].startswith("HTTP/1."):
            raise UnframedError(f"no HTTP/1 message begins with {first[:40]!r}")
        if self._is_up:
            self._talk.methods.append(words[0])
        elif self._has_no_body(words[1]):
            return True
        if "chunked" in fields.get("transfer-encoding", ""):
            self._take = self._take_chunk_line
        elif "content-length" in fields:
            self._left = read_size(fields["content-length"], 10)
            self._take = self._take_body
            return not self._left and self._end()
        elif self._is_up:
            return True
        else:
            self._take = take_all
        return False

    def _has_no_body(self, status: str) -> bool:
        if status == "101":
            raise UnframedError("the connection was upgraded")
        if status[:1] == "1":
            return True
        method = self._talk.methods.popleft() if self._talk.methods else "GET"
        if method == "CONNECT" and status[:1] == "2":
            raise UnframedError("the connection became a tunnel")
        return method == "HEAD" or status in {"204", "304"}

    def _end(self) -> bool:
        self._take = self._take_head
        return True

    def _take_body(self, data: bytes, at: int) -> tuple[int, bool]:
        step = min(self._left, len(data) - at)
        self._left -= step
        return at + step, not self._left and self._end()

    def _take_line(self, data: bytes, at: int) -> tuple[int, str | None]:
        end = data.find(b"\n", at) + 1 or len(data)
        self._line += data[at:end]
        if len(self._line) > LINE_LIMIT:
            raise UnframedError(f"an HTTP line of more than {LINE_LIMIT} bytes")
        if not self._line.endswith(b"\n"):
            return end, None
        line = self._line.decode("latin-1").strip()
        self._line.clear()
        return end, line

    def _take_chunk_line(self, data: bytes, at: int) -> tuple[int, bool]:
        at, line = self._take_line(data, at)
        if line is not None:
            size = read_size(line.partition(";")[0].strip(), 16)
            self._left = size + 2  # the line's end after it
            self._take = self._take_chunk if size else self._take_trailer
        return at, False

    def _take_chunk(self, data: bytes, at: int) -> tuple[int, bool]:
        at, ended = self._take_body(data, at)
        if ended:
            self._take = self._take_chunk_line
        return at, False

    def _take_trailer(self, data: bytes, at: int) -> tuple[int, bool]:
        at, line = self._take_line(data, at)
        return at, line == "" and self._end()

    def is_enough(self, head: bytearray) -> bool:
        """A reply is known by its head; a client that says `Expect: 100-continue` waits after it."""
        return HEAD_END in head and (not self._is_up or b"100-continue" in head.lower())

    def read(self, head: bytes) -> Message:
        """The request as it stands, `POST /charges HTTP/1.1` first."""
        if not self._is_up and head[9:10] == b"1":
            return Message("interim", head, NO_REPLY)
        self._count += 1
        return Message(head.split(b" ", 1)[0].decode("latin-1")[:40] if self._is_up else "reply", head, self._count)


def take_all(data: bytes, at: int) -> tuple[int, bool]:
    """A body that ends with the connection."""
    return max(at, len(data)), False


def read_size(text: str, base: int) -> int:
    """A size in a head or before a chunk. Raises UnframedError."""
    try:
        size = int(text, base)
    except ValueError:
        size = -1
    if size < 0:
        raise UnframedError(f"a body or a chunk of {text[:40]!r} bytes")
    return size
