"""Asks both relays, and answers with what came back and what it was told."""

import json
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def ask(address, word):
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection, connection.makefile("rw") as lines:
        lines.write(word + "\n")
        lines.flush()
        return lines.readline().strip()


class Handler(BaseHTTPRequestHandler):
    """Every path is the same."""

    def do_GET(self):
        try:
            heard = [ask(address, "hello") for address in os.environ["RELAY_POST_ADDRESSES"].split(",")]
        except OSError as error:
            self.send_error(503, str(error))
            return
        told = {key: value for key, value in os.environ.items() if key.endswith(("_ADDRESS", "_ADDRESSES", "_URL"))}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"heard": heard, "told": told}).encode())

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
