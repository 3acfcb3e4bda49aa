"""Prints 30 MB before it is ready, and more with each hit."""

import itertools
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.stdout.write(("x" * 99 + "\n") * 300_000)
numbers = itertools.count(1)
given = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"hits": len(given)})

    def do_POST(self):
        sys.stdout.write("y" * 100_000 + "\n")
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
