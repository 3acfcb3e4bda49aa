"""Does what a test asks of it."""

import json
import os
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

started = time.monotonic_ns()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind, _, rest = self.path.lstrip("/").partition("/")
        if kind == "env":
            body = dict(os.environ)
        elif kind == "clock":
            body = {"wall": time.time(), "monotonic_ns": time.monotonic_ns(), "started_ns": started}
        elif kind == "price":
            with urllib.request.urlopen(f"{os.environ['PRICE_LIST_URL']}/prices/{rest}") as answer:
                body = json.load(answer)
        elif kind == "whoami":
            body = {"replica": os.environ["REPLICA"], "pid": os.getpid(), "cwd": str(Path.cwd()), "argv": sys.argv}
        elif kind == "die":
            os._exit(int(rest))
        else:
            body = {"ok": True}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


print("app", os.environ["REPLICA"], "listens", flush=True)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
