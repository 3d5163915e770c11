"""A small HTTP service that fails at every third request: python target.py PORT"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

numbers = count(1)


class Service(BaseHTTPRequestHandler):
    """Tells what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = 503 if next(numbers) % 3 == 0 else 200
        document = {
            "method": self.command,
            "path": self.path,
            "attempt": self.headers["OpenHQM-Attempt"],
            "body": json.loads(body or b"null"),
        }
        answer = json.dumps(document).encode()
        print(status, answer.decode(), flush=True)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST

    def log_message(self, *arguments):
        """It is printed above."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
