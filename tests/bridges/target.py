"""An HTTP service in a process of its own, which writes each body that it is sent into a file: ``PORT FILE``."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Service(BaseHTTPRequestHandler):
    """It answers once the line is written."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    file: Any

    def do_POST(self) -> None:
        """Write the body down, and answer with it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.file.write(body + b"\n")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""


if __name__ == "__main__":
    with Path(sys.argv[2]).open("ab", buffering=0) as Service.file:
        ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
