"""The server side of a peer: a Starlette app that keeps its own ledger of calls, and a second address where the kit reads and steers it.

A peer of a lab is a file such as

    peer = Peer(delay_s=0.2)

    @peer.route("GET", "/products/{key}")
    async def load_product(request, call):
        call["key"] = request.path_params["key"]
        await peer.sleep(peer.state["delay_s"])
        return {"price": 3}

    peer.run()

The public address is PORT; its paths start with the caller's replica (`/app-2/products/7`), put there by the kit in `<PEER>_URL`. (With
`http = false` in lab.toml it speaks another protocol, which it serves by itself: `peer.run(serve)`; the app finds it at `<PEER>_ADDRESS`.) The
control address is CONTROL_PORT with the bearer token CONTROL_TOKEN, which the app never receives: `GET /calls?after=n` and `POST /state`.
"""

import asyncio
import hmac
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

HOST = os.environ.get("HOST", "127.0.0.1")

Call = dict[str, Any]
Handler = Callable[[Request, Call], Awaitable[Response | dict[str, Any]]]


class Peer:
    """A process of the lab's own that the app calls. `state` is what the scenario may change while it runs."""

    def __init__(self, **state: Any) -> None:
        self.state = state
        self.calls: list[Call] = []
        self.seed = int(os.environ.get("SEED", "0"))
        self._changed = asyncio.Condition()
        self._counts: Counter[str] = Counter()
        self._routes: list[Route] = []

    def route(self, method: str, path: str) -> Callable[[Handler], Handler]:
        """Serve `path` with a handler `(request, call)`; what it puts into `call` becomes part of the ledger."""

        def add(handler: Handler) -> Handler:
            async def serve(request: Request) -> Response:
                replica, path = request.path_params["replica"], request.url.path
                with self.noted(method, path.removeprefix("/" + replica), replica) as call:
                    try:
                        answer = await handler(request, call)
                        response = answer if isinstance(answer, Response) else JSONResponse(answer)
                    except Exception:
                        call["status"] = 500  # what Starlette now answers
                        raise
                    call["status"] = response.status_code
                return response

            self._routes.append(Route("/{replica}" + path, serve, methods=[method]))
            return handler

        return add

    @contextmanager
    def noted(self, method: str, path: str, replica: str | None = None) -> Iterator[Call]:
        """A call in the ledger, from here to the block's end; `route` does it for HTTP, the server of another protocol for itself."""
        call: Call = {
            "n": len(self.calls) + 1,
            "replica": replica,
            "method": method,
            "path": path,
            "start_ns": time.monotonic_ns(),
            "end_ns": None,
            "status": None,
        }
        self.calls.append(call)
        try:
            yield call
        finally:
            call["end_ns"] = time.monotonic_ns()

    def count(self, what: str) -> int:
        """1, 2, 3, ... for each thing counted: the order in which things took effect."""
        self._counts[what] += 1
        return self._counts[what]

    async def sleep(self, seconds: float) -> None:
        """The time that the real thing would take."""
        await asyncio.sleep(seconds)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Hold a call until the scenario has changed `state` so that `is_so()`."""
        async with self._changed:
            await self._changed.wait_for(is_so)

    def run(self, serve: Callable[[str], Awaitable[object]] | None = None) -> None:
        """Serve both addresses until killed; `serve("host:port")` the public one, where that speaks no HTTP."""
        asyncio.run(self._serve(serve))

    async def _serve(self, serve: Callable[[str], Awaitable[object]] | None) -> None:
        token = f"Bearer {os.environ['CONTROL_TOKEN']}"

        def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
            async def check(request: Request) -> Response:
                if not hmac.compare_digest(request.headers.get("authorization", ""), token):
                    return JSONResponse({"detail": "not for you"}, status_code=403)
                return await handler(request)

            return check

        async def read_calls(request: Request) -> Response:
            return as_json(self.calls[int(request.query_params.get("after", 0)) :])

        async def change_state(request: Request) -> Response:
            async with self._changed:
                self.state.update(await request.json())
                self._changed.notify_all()
            return as_json(self.state)

        control = [Route("/calls", guarded(read_calls)), Route("/state", guarded(change_state), methods=["POST"])]
        public = self._listen(Starlette(routes=self._routes), int(os.environ["PORT"])) if serve is None else serve(f"{HOST}:{os.environ['PORT']}")
        await asyncio.gather(
            public,
            self._listen(Starlette(routes=control), int(os.environ["CONTROL_PORT"])),
        )

    @staticmethod
    async def _listen(app: Starlette, port: int) -> None:
        config = uvicorn.Config(app, host=HOST, port=port, log_level="warning", access_log=False, lifespan="off")
        await uvicorn.Server(config).serve()


def as_json(value: object) -> Response:
    """Of whatever a peer may note: JSONResponse refuses NaN and half a surrogate, and then nothing of the ledger can be read."""
    return Response(json.dumps(value), media_type="application/json")
