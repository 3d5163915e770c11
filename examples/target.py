"""A small HTTP service that fails at every third request (or never): python target.py PORT [never]"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

numbers = count(1)


class Service(BaseHTTPRequestHandler):
    """Answers with the request that it got."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = 503 if next(numbers) % 3 == 0 and "never" not in sys.argv else 200
        document = {
            "method": self.command,
            "path": self.path,
            "attempt": self.headers["OpenHQM-Attempt"],
            "body": json.loads(body or b"null"),
        }
        answer = json.dumps(document).encode()
        print(f"{status} {answer.decode()}\n", end="", flush=True)  # one write, because other threads print, too
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Application", "example")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST

    def log_message(self, *arguments):
        """Print nothing: the request is printed above."""


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service)
print("listening", flush=True)
server.serve_forever()
