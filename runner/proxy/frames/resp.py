"""Messages of the Redis serialization protocol."""

from runner.proxy.frames.message import FRAME_LIMIT, LINE_LIMIT, LOOK, NO_REPLY, Message, UnframedError

SECRET = {b"AUTH", b"HELLO"}


class Resp:
    """Source: the RESP specification, versions 2 and 3, and its inline commands. Replies are told from each other by counting."""

    def __init__(self, *, is_up: bool) -> None:
        self._is_up = is_up
        self._line = bytearray()
        self._need = 0  # values that the message still lacks
        self._skip = 0  # bytes that the current string still lacks
        self._count = 0
        self._words: list[bytes] | None = None  # of the current command, when it came in one piece

    def consume(self, data: bytes, at: int) -> tuple[int, bool]:
        """Line by line, over nested values."""
        if self._is_up:
            self._words = None
            if not (self._need or self._skip or self._line) and data[at : at + 1] == b"*":
                words, end = read_words(data, at)
                if end:
                    self._words = words
                    return end, True
        while True:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                if self._skip:
                    return at, False
                if not self._need:
                    return at, True
            found = data.find(b"\n", at)
            if found < 0:
                self._line += data[at:]
                if len(self._line) > LINE_LIMIT:
                    raise UnframedError(f"a RESP line of more than {LINE_LIMIT} bytes")
                return len(data), False
            line = bytes(self._line) + data[at:found]
            self._line.clear()
            at = found + 1
            if self._take(line.removesuffix(b"\r")):
                return at, True

    def _take(self, line: bytes) -> bool:
        """Whether the message ends with this line."""
        if not self._need:
            if self._is_up and line[:1] != b"*":
                return True  # an inline command: the line is all of it
            self._need = 1
        kind = line[:1]
        if kind in {b"$", b"=", b"!"}:
            size = read_number(line)
            self._skip = size + 2 if size >= 0 else 0
            self._need -= 1
        elif kind in {b"*", b"~", b">"}:
            self._need += max(read_number(line), 0) - 1
        elif kind == b"%":
            self._need += 2 * read_number(line) - 1
        elif kind == b"|":
            self._need += 2 * read_number(line)
        elif kind in {b"+", b"-", b":", b"_", b"#", b",", b"("}:
            self._need -= 1
        else:
            raise UnframedError(f"no RESP value: {line[:40]!r}")
        if self._need < 0 or self._skip > FRAME_LIMIT * 2:
            raise UnframedError(f"a RESP value that cannot be: {line[:40]!r}")
        return not self._skip and not self._need

    def is_enough(self, head: bytearray) -> bool:  # noqa: ARG002
        """A reply is known by its place."""
        return not self._is_up

    def read(self, head: bytes) -> Message:
        """`SET key value`: the arguments, a space between; what a login says is left out."""
        if not self._is_up:
            if head[:1] == b">":
                return Message("push", head, NO_REPLY)
            self._count += 1
            return Message("reply", head, self._count)
        words = self._words
        if words is None:
            words = read_words(head, 0)[0] if head[:1] == b"*" else head.split()
        if not words:  # Redis does not answer an empty line
            return Message("empty", head, NO_REPLY, is_request=False)
        self._count += 1
        name = words[0].upper()
        return Message(name.decode("latin-1")[:40], name if name in SECRET else b" ".join([name, *words[1:]])[:LOOK], self._count)


def read_number(line: bytes) -> int:
    """The number after the first byte. Raises UnframedError."""
    try:
        return int(line[1:])
    except ValueError:
        raise UnframedError(f"a RESP value that cannot be read: {line[:40]!r}") from None


def read_words(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The bulk strings of the array that begins at `at`, as far as they go, and where it ends; 0 when that is not in `data`."""
    words: list[bytes] = []
    end = data.find(b"\n", at)
    count = data[at + 1 : end].strip()
    if end < 0 or not count.isdigit() or len(count) > 9:
        return words, 0
    at = end + 1
    for _ in range(int(count)):
        end = data.find(b"\n", at)
        size = data[at + 1 : end].strip()
        if end < 0 or data[at : at + 1] != b"$" or not size.isdigit() or len(size) > 9:
            return words, 0
        at = end + 1 + int(size) + 2
        words.append(data[end + 1 : at - 2])
        if at > len(data):
            return words, 0
    return words, at
