"""What each address of the pages answers. No part of an address is ever a path: it is the name of a lab or a run that is looked up."""

from collections.abc import AsyncIterator, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from runner.checkout import all_lab_folders, find_root
from runner.errors import LabsError
from runner.hints import next_hint
from runner.lab import Lab, read_lab
from runner.page import ASSETS
from runner.progress import Standing, read_progress
from runner.ui.conductor import BusyError, Conductor
from runner.ui.door import REPORT_POLICY, Door
from runner.ui.pages import choices, draw, draw_lab, draw_map

SERVED: Mapping[str, str] = {
    "report.css": "text/css",
    "ui.css": "text/css",
    "ui.js": "text/javascript",
    "uPlot.iife.min.js": "text/javascript",
    "uPlot.min.css": "text/css",
}


def make_app(conductor: Conductor, hosts: frozenset[str]) -> ASGIApp:
    """The application, behind its door."""
    pages = Pages(conductor)
    routes = [
        Route("/", pages.show_map),
        Route("/labs/{name}", pages.show_lab),
        Route("/labs/{name}/hint", pages.take_hint, methods=["POST"]),
        Route("/labs/{name}/run/{submission}", pages.start_run, methods=["POST"]),
        Route("/stop", pages.stop_run, methods=["POST"]),
        Route("/runs/{run}/events", pages.tell_events),
        Route("/runs/{run}/report.html", pages.show_report),
        Route("/assets/{name}", pages.send_asset),
    ]
    handlers = {HTTPException: show_refusal, LabsError: show_error, BusyError: show_error}
    return Door(Starlette(routes=routes, exception_handlers=handlers), hosts)


class Pages:
    """The handlers. Those that only read the disk are plain functions, which Starlette runs in threads; what starts a run belongs to the loop."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor

    def show_map(self, request: Request) -> Response:  # noqa: ARG002 - every handler takes it
        """The roadmap."""
        return HTMLResponse(draw_map(self.conductor))

    def show_lab(self, request: Request) -> Response:
        """A lab's page."""
        return HTMLResponse(draw_lab(lab_of(request), self.conductor))

    def take_hint(self, request: Request) -> Response:
        """One hint more, as `labs hint` would show it."""
        lab = lab_of(request)
        next_hint(lab)
        return back_to(lab.name, "hints")

    async def start_run(self, request: Request) -> Response:
        """Run one of the submissions that the page offers."""
        lab = lab_of(request)
        offered = choices(has_passed=read_progress().get(lab.name, Standing()).state == "passed")
        if request.path_params["submission"] not in offered:
            raise HTTPException(404, f"there is nothing of that name to run here: {', '.join(offered)}")
        await self.conductor.start(lab, offered[offered.index(request.path_params["submission"])])
        return back_to(lab.name, "run")

    async def stop_run(self, request: Request) -> Response:  # noqa: ARG002
        """End the run."""
        await self.conductor.stop()
        return back_to(self.conductor.current.lab, "run") if self.conductor.current else RedirectResponse("/", 303)

    async def tell_events(self, request: Request) -> Response:
        """The events of the run as server-sent events (HTML standard, 9.2), from the first or after the last that was received."""
        run = self.conductor.current
        if run is None or run.id != request.path_params["run"]:
            raise HTTPException(404, "there is no such run under way")
        last = request.headers.get("last-event-id", "0")
        after = int(last) if last.isdecimal() else 0

        async def stream() -> AsyncIterator[str]:
            async for number, event in run.events(after):
                yield f"id: {number}\ndata: {event}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    def show_report(self, request: Request) -> Response:
        """The report of a run."""
        pages = {page.parent.name: page for page in (find_root() / ".labs" / "runs").glob("*/report.html")}
        if request.path_params["run"] not in pages:
            raise HTTPException(404, "there is no such run, or it has no report")
        return FileResponse(pages[request.path_params["run"]], media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})

    def send_asset(self, request: Request) -> Response:
        """Style and script of the pages."""
        name = request.path_params["name"]
        if name not in SERVED:
            raise HTTPException(404, "there is no such file")
        return FileResponse(ASSETS / name, media_type=SERVED[name])


def lab_of(request: Request) -> Lab:
    """The lab that the address names. Raises HTTPException for one that does not exist, LabError for a broken one."""
    folders = {folder.name: folder for folder in all_lab_folders(find_root())}
    if request.path_params["name"] not in folders:
        raise HTTPException(404, "there is no such lab")
    return read_lab(folders[request.path_params["name"]])


def back_to(lab: str, part: str) -> Response:
    """After a POST: the lab's page again, so that a reload repeats nothing."""
    return RedirectResponse(f"/labs/{lab}#{part}", 303)


def show_refusal(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """What was asked for does not exist."""
    assert isinstance(error, HTTPException)
    return HTMLResponse(draw("error.html", message=error.detail, hint=""), error.status_code)


def show_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """The lab, the machine or another run is in the way."""
    assert isinstance(error, LabsError)
    return HTMLResponse(draw("error.html", message=str(error), hint=error.hint), 409 if isinstance(error, BusyError) else 500)
