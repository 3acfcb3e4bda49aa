"""One message of a protocol, and what a parser of a stream of messages does. A parser never changes or keeps a byte."""

from dataclasses import dataclass
from typing import Protocol

LOOK = 16 * 1024  # what is read of a message, and so what a pattern sees; the rest flows by
LINE_LIMIT = 64 * 1024  # of a line or a head that has not ended yet
FRAME_LIMIT = 256 * 1024 * 1024
NEXT = -1  # the key of a request whose reply is whatever comes next
NO_REPLY = -2  # the key of a message that answers nothing: a push, an interim answer


class UnframedError(ValueError):
    """From here on this connection cannot be split: TLS, compression, another protocol, or nonsense."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `text` is what a pattern is matched against; a reply has the `key` of its request."""

    kind: str
    text: bytes
    key: int
    is_request: bool = True


class Parser(Protocol):
    """One direction of one connection."""

    def consume(self, data: bytes, at: int) -> tuple[int, bool]:
        """Take bytes of the current message, from `at` on: where it stopped, and whether the message ended there. Raises UnframedError."""

    def is_enough(self, head: bytearray) -> bool:
        """Whether `read` need not wait for the message's end: all is known, or the sender waits for an answer before it goes on."""

    def read(self, head: bytes) -> Message:
        """What the message is that begins with `head`; called once for each, before the next is consumed. Raises UnframedError."""


class Chunks:
    """Any protocol: each chunk that the kernel hands over is a message."""

    def consume(self, data: bytes, at: int) -> tuple[int, bool]:
        """All of it."""
        return max(at, len(data)), True

    def is_enough(self, head: bytearray) -> bool:  # noqa: ARG002
        """It is never cut in two."""
        return True

    def read(self, head: bytes) -> Message:
        """A chunk."""
        return Message("chunk", head, NEXT)
