"""`labs load`: a lab kept up, with Locust's own page on it."""

import contextlib
import http.client
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from conftest import Kit

# A lab whose servers take a minute to start.
SLOW = """
import runner.loadtest
from runner.judge import Order

class SlowRun(runner.loadtest.Run):
    def start(self, **options):
        super().start(**options)
        self.created_ns -= 60 * 10**9

runner.loadtest.Run = SlowRun
runner.loadtest.serve(Order("hits", "solution", backend="embedded"), web_port={port}, options=[])
"""


def page_on(port: int) -> bytes:
    """Locust's page; empty while nobody serves it."""
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as one:
        one.request("GET", "/")
        return one.getresponse().read()
    return b""


def test_the_lab_is_up_under_locusts_page_until_ctrl_c(
    kit: "Kit", unused_ports: Callable[[int], list[int]], eventually: Callable[..., Any], processes: Callable[[], list[psutil.Process]]
) -> None:
    (port,) = unused_ports(1)
    process = kit.start("load", "hits", "--submission=solution", f"--web-port={port}")
    page = eventually(lambda: page_on(port), "Locust's page", 30)
    assert b"locust" in page.lower()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert f"http://127.0.0.1:{port}   <- open this, start a load" in said
    assert said.endswith("\nstopping\n")
    assert processes() == []


def test_a_locust_that_ends_at_once_is_an_error_however_long_the_servers_took(kit: "Kit", unused_ports: Callable[[int], list[int]]) -> None:
    kit.edit("microservices/hits/locustfile.py", "from locust import", "import no_such_module\nfrom locust import")
    (port,) = unused_ports(1)
    done = kit.python("-c", SLOW.format(port=port))
    assert "MachineError: Locust ended (exit code 1)" in done.stderr
    assert "No module named 'no_such_module'" in done.stderr


def test_a_port_that_is_none_is_said(kit: "Kit") -> None:
    done = kit.labs("load", "hits", "--submission=solution", "--web-port=99999")
    assert done.returncode == 3
    assert done.stderr.startswith("ERROR  no page can listen on port 99999\n\nhint: ")
