"""What the embedded backend must know of a real server to run it as a child process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runner.stack import Address
from runner.stack.provision import Cache


@dataclass(frozen=True)
class Launch:
    """One server process about to be started."""

    argv: Sequence[str]


class EmbeddedServer(Protocol):
    """One real server, embedded. Its module is `runner/stack/embedded_<service>.py`."""

    def fetch(self, cache: Cache) -> None:
        """Bring everything needed into the cache, templates included. Does nothing the second time; two at once are safe."""

    def launch(self, cache: Cache, folder: Path, address: Address) -> Launch:
        """Lay out `folder` (empty at first; kept over a restart) and say what to run. `address` holds the port and admin password to use."""
