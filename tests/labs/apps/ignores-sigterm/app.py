"""Takes SIGTERM, SIGINT and SIGHUP for nothing."""

import itertools
import json
import os
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(signo, signal.SIG_IGN)
numbers = itertools.count(1)
given = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"hits": len(given)})

    def do_POST(self):
        given.append(number := next(numbers))
        self.answer({"number": number})

    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
