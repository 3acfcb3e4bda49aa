"""Where one protocol message ends and the next begins in a stream of bytes, and what each is called. Pure."""

from collections.abc import Callable

from runner.proxy.frames.http1 import Http, HttpTalk
from runner.proxy.frames.message import LOOK, NEXT, NO_REPLY, Chunks, Message, Parser, UnframedError
from runner.proxy.frames.prefixed import Kafka, Mysql, MysqlTalk
from runner.proxy.frames.resp import Resp

__all__ = ["LOOK", "NEXT", "NO_REPLY", "PROTOCOLS", "Chunks", "Message", "Parser", "UnframedError", "open_frames"]


def open_frames(protocol: str) -> tuple[Parser, Parser]:
    """The parsers of a new connection: up (what the client sends) and down. Raises KeyError."""
    return PROTOCOLS[protocol]()


def open_mysql() -> tuple[Parser, Parser]:
    """A pair that shares what was prepared."""
    talk = MysqlTalk()
    return Mysql(talk, is_up=True), Mysql(talk, is_up=False)


def open_http() -> tuple[Parser, Parser]:
    """A pair that shares which methods were asked."""
    talk = HttpTalk()
    return Http(talk, is_up=True), Http(talk, is_up=False)


PROTOCOLS: dict[str, Callable[[], tuple[Parser, Parser]]] = {
    "kafka": lambda: (Kafka(is_up=True), Kafka(is_up=False)),
    "mysql": open_mysql,
    "redis": lambda: (Resp(is_up=True), Resp(is_up=False)),
    "http": open_http,
    "any": lambda: (Chunks(), Chunks()),
}
