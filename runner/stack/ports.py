"""Ports of this machine's loopback, chosen by the OS and kept for one run."""

import socket
import sys

HOST = "127.0.0.1"


class Ports:
    """The ports of one run.

    On Linux a port stays bound, not listening, by a socket with SO_REUSEADDR (ip(7)): a server that sets it too, as servers do, can still
    listen there, while the kernel gives the port to no outgoing connection and to no other run.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self) -> int:
        """A port that nothing else gets until `release`."""
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, 0))
        port: int = holder.getsockname()[1]
        if sys.platform.startswith("linux"):
            self._held.append(holder)
        else:
            holder.close()
        return port

    def release(self) -> None:
        """Give them all back."""
        for holder in self._held:
            holder.close()
        self._held.clear()


def is_port_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):  # taken, or no port at all
            return False
        return True
