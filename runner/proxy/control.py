"""All links of a run, and the address where the kit steers and reads them.

`GET /links`, `GET /events?after=n`, `POST /arm {link, kind, ...}`, `POST /heal {link, fault}`; `runner.wire` is the other end. Several links at the
same instant: `POST /arm {links: [name, ...], kind, ...}`, `POST /heal {faults: {name: fault or null}}`; `runner.mesh` asks for that.
"""

import asyncio
import hmac
import json
import random
import sys
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs, urlsplit

from runner.proxy.fault import FaultError
from runner.proxy.link import Ledger, Link

REQUEST_WITHIN_S = 10.0
BODY_LIMIT = 64 * 1024
REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error"}


class Proxy:
    """All links of a run, and their control."""

    def __init__(self, links: list[dict[str, Any]], *, host: str, token: str, seed: int = 0) -> None:
        self._ledger = Ledger()
        self._token = f"Bearer {token}".encode()
        self._host = host
        chance = random.Random(seed)
        self.links: dict[str, Link] = {}
        for link in links:
            to_host, _, to_port = link["to"].rpartition(":")
            target = to_host, int(to_port)
            self.links[link["name"]] = Link(link["name"], link["port"], target, link.get("protocol", "any"), host, self._ledger, chance)

    async def serve(self, control_port: int) -> None:
        """Listen on every link, then on the control port: who hears that knows that all links are up."""
        for link in self.links.values():
            link.listen()
        server = await asyncio.start_server(self._control, self._host, control_port, limit=BODY_LIMIT)
        await server.serve_forever()

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer."""
        try:
            async with asyncio.timeout(REQUEST_WITHIN_S):
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                method, target, _ = first.split(" ", 2)
                if hmac.compare_digest(fields.get("authorization", "").encode("latin-1"), self._token):
                    body = await reader.readexactly(min(int(fields.get("content-length", "0")), BODY_LIMIT))
                    status, answer = await self._answer(method, target, json.loads(body or b"{}"))
                else:
                    status, answer = 403, {"detail": "not for you"}
                text = json.dumps(answer).encode()
                lead = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
                writer.write(lead.encode() + b"Connection: close\r\n\r\n" + text)
                await writer.drain()
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError, TimeoutError) as error:
            print(f"no control request: {error!r}", file=sys.stderr, flush=True)
        finally:
            writer.close()

    async def _answer(self, method: str, target: str, body: dict[str, Any]) -> tuple[int, object]:
        url = urlsplit(target)
        try:
            match method, url.path:
                case "GET", "/links":
                    return 200, {name: link.tell() for name, link in self.links.items()}
                case "GET", "/events":
                    after = int(parse_qs(url.query).get("after", ["0"])[0])
                    return 200, {"events": self._ledger.events[after:], "left_out": self._ledger.left_out}
                case "POST", "/arm":
                    links = self._find(body.pop("links", None) or [body.get("link")])
                    told = [link.arm(body).tell() for link in links]
                    await asyncio.sleep(0)  # a reset connection is closed in the loop's next turn
                    return 200, told if "link" not in body else told[0]
                case "POST", "/heal":
                    faults = body.get("faults") or {body.get("link"): body.get("fault")}
                    for link, number in zip(self._find(faults), faults.values(), strict=True):
                        link.heal(number)
                    await asyncio.sleep(0)
                    return 200, {}
        except FaultError as error:
            return 400, {"detail": str(error)}
        except OSError as error:
            return 500, {"detail": str(error)}
        return 404, {"detail": f"nothing is at {method} {url.path}"}

    def _find(self, names: Collection[object]) -> list[Link]:
        found = [self.links.get(str(name)) for name in names]
        if None in found:
            unknown = next(name for name, link in zip(names, found, strict=True) if link is None)
            raise FaultError(f"no link is called {unknown!r}; there are {', '.join(self.links)}")
        return [link for link in found if link is not None]
