"""Asks the others who they are, and keeps a word in its own folder."""

import http.client
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

WORD = Path(os.environ["DATA_DIR"]) / "word"


def ask(url):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=1.0)
    try:
        connection.request("GET", "/who")
        return json.load(connection.getresponse())["replica"]
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


class Handler(BaseHTTPRequestHandler):
    """Who, ask, word."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        match self.path:
            case "/who":
                self.answer({"replica": int(os.environ["REPLICA"])})
            case "/ask":
                self.answer({"heard": [ask(url) for url in os.environ["PEERS"].split(",")]})
            case "/word":
                self.answer({"word": WORD.read_text() if WORD.exists() else None, "seen": sorted(map(str, WORD.parent.parent.glob("*/word")))})
            case _:
                self.answer({"ok": True})

    def do_PUT(self):
        WORD.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"kept": True})

    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
