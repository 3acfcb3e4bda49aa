"""Serves the pages on this machine's loopback, and ends with nothing left behind."""

import contextlib
import socket
import threading
import webbrowser

import uvicorn

from runner.checkout import find_root
from runner.errors import MachineError
from runner.stack.ports import HOST
from runner.ui.conductor import Conductor
from runner.ui.routes import make_app

DRAINED_WITHIN_S = 3


class PageServer(uvicorn.Server):
    """uvicorn, which first ends the run that is under way: who looks on would keep their connections open until it is over."""

    def __init__(self, config: uvicorn.Config, conductor: Conductor, address: str, *, is_opened: bool) -> None:
        super().__init__(config)
        self.conductor = conductor
        self.address = address
        self.is_opened = is_opened

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where it listens once it does."""
        await super().startup(sockets)
        print(f"backend-labs: {self.address}   (Ctrl-C ends it)", flush=True)
        if self.is_opened:
            threading.Thread(target=webbrowser.open, args=[self.address], daemon=True).start()  # a browser in the terminal would stop us

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End everything."""
        if self.conductor.is_busy:
            print("\nstopping the run", flush=True)
        await self.conductor.stop()
        await super().shutdown(sockets)


def serve(port: int, backend: str, *, is_opened: bool) -> int:
    """Until Ctrl-C. `port` 0: one that is free. Raises MachineError when the port is taken."""
    find_root()
    with listen(port) as listener:
        port = listener.getsockname()[1]
        conductor = Conductor(backend)
        app = make_app(conductor, frozenset({f"{HOST}:{port}", f"localhost:{port}"}))
        config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=DRAINED_WITHIN_S)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has done what it asks for, and passes it on
            PageServer(config, conductor, f"http://{HOST}:{port}/", is_opened=is_opened).run([listener])
    return 0


def listen(port: int) -> socket.socket:
    """A socket on the loopback, and nowhere else. Raises MachineError."""
    try:
        if not 0 <= port < 1 << 16:
            raise OSError("a port is a number up to 65535")  # noqa: TRY301 - told like what the system refuses
        return socket.create_server((HOST, port))
    except OSError as error:
        raise MachineError(f"the pages cannot be served on {HOST}:{port}: {error}", "leave out --port, and a free one is taken") from error
