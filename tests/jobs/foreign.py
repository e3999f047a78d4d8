"""Another program at an address that a lab announced once: it answers, and notes what it was shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWERS = [
    (404, "not found"),
    (409, '{"command": "stop"}'),
    (200, "<!doctype html><title>A page</title>"),
    (200, '{"ready": true}'),
    (200, '{"ready": true, "proof": "0"}'),
    (200, "[]"),
]
"""Status and body of what other programs say, and what one says that pretends."""


@dataclass
class Foreign:
    """Such a program at work."""

    address: str
    requests: list[str] = field(default_factory=list)
    """Lines of the requests that came."""
    tokens: set[str] = field(default_factory=set)
    """What they showed as authorization."""


@contextmanager
def foreign_server(status: int, body: str) -> Iterator[Foreign]:
    """Answers every request alike for a while."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def answer(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            seen.requests.append(self.requestline)
            seen.tokens |= {self.headers["Authorization"]} - {None}
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        seen = Foreign(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield seen
        finally:
            http.shutdown()
            thread.join()
