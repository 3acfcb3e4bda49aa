"""Who may come in: requests of this machine's own pages, and nobody else's.

A page of a stranger in the same browser can send requests here. The Host header tells a name that was bound to 127.0.0.1 afterwards (DNS
rebinding), the Origin header a form or script of another page (Fetch standard: every POST of a browser has one).
"""

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A report carries its own script and the words of a stranger's run: it gets an origin of its own, which may ask nothing of anybody.
REPORT_POLICY = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Door:
    """Refuses what does not come from a page at one of `hosts` (each `name:port`), and closes the answers against strangers."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_closed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self.find_problem(scope["method"], Headers(scope=scope))
        answer = PlainTextResponse(problem + "\n", 403) if problem else self.app
        await answer(scope, receive, send_closed)

    def find_problem(self, method: str, headers: Headers) -> str:
        """Why a request is refused; "" when it is not."""
        host, origin, site = headers.get("host", ""), headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if host not in self.hosts:
            return f"refused: this page is at {' or '.join(sorted(self.hosts))}, and the request asks for {host!r}"
        if method not in SAFE_METHODS and (origin != f"http://{host}" or site != "same-origin"):
            return f"refused: a {method} must come from a page of http://{host}, and this one comes from {origin or 'no page'}"
        return ""
