"""A sidecar whose Redis is killed under load: what goes straight to the application does not notice."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.servers import Server

ENOUGH = 30
"""So many requests of each kind are seen before Redis is killed, while it is away, and after it is back."""


class Application(BaseHTTPRequestHandler):
    """Answers each request with its path and its body."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class OutageTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
        application.daemon_threads = True
        application.handle_error = lambda *_: None  # type: ignore[method-assign] # a connection that is cut is no news
        threading.Thread(target=application.serve_forever, daemon=True).start()
        self.addCleanup(application.server_close)
        self.addCleanup(application.shutdown)
        self.redis = RedisServer().start()
        self.addCleanup(self.redis.close)
        self.server = Server(
            directory,
            OPENHQM_QUEUE__TYPE="redis",
            OPENHQM_QUEUE__REDIS_URL=self.redis.url,
            OPENHQM_PROXY__SIDECAR__ENABLED="true",
            OPENHQM_PROXY__SIDECAR__UPSTREAM=f"http://127.0.0.1:{application.server_port}",
            OPENHQM_PROXY__SIDECAR__ASYNC_RULES='[{"path": "/reports/*", "methods": ["POST"]}]',
            OPENHQM_WORKER__HANDLER="",
        )
        self.addCleanup(lambda: self.server.process and self.server.process.poll() is None and self.server.kill())
        self.seen: Counter[str] = Counter()
        self.accepted: dict[str, int] = {}
        self.over = threading.Event()

    def run_callers(self) -> None:
        """Callers of the straight path, of the queue, and a probe, until it is over."""
        callers = [threading.Thread(target=each) for each in (self.straight, self.straight, self.queued, self.probe)]
        for caller in callers:
            caller.start()

        def end() -> None:
            self.over.set()
            for caller in callers:
                caller.join()

        self.addCleanup(end)

    def straight(self) -> None:
        connection = self.server.connection()
        number = 0
        while not self.over.is_set():
            number += 1
            try:
                connection.request("GET", f"/pages/{number}")
                response = connection.getresponse()
                good = (response.status, response.read()) == (200, b"/pages/%d" % number)
            except Exception as error:  # of any kind: it is counted as what no caller may see
                self.seen[f"straight: {error!r}"] += 1
            else:
                self.seen["straight" if good else f"straight: {response.status}"] += 1

    def queued(self) -> None:
        number = 0
        while not self.over.is_set():
            number += 1
            status, fields, body = self.server.ask("POST", "/reports/1", number)
            self.seen[f"queued: {status}"] += 1
            if status == 202:
                self.accepted[json.loads(body)["correlation_id"]] = number
            elif "retry-after" not in fields:
                self.seen["queued: no Retry-After"] += 1
            time.sleep(0.01)  # a caller's pace

    def probe(self) -> None:
        while not self.over.is_set():
            for route in ("live", "ready"):
                self.seen[f"{route}: {self.server.ask('GET', f'/_openhqm/health/{route}')[0]}"] += 1
            time.sleep(0.02)  # as above

    def until_more(self, *kinds: str) -> None:
        """Until so many of each kind were seen as are enough."""
        before = {kind: self.seen[kind] for kind in kinds}
        self.server.until(
            lambda: all(self.seen[kind] >= before[kind] + ENOUGH for kind in kinds), f"{kinds}: {self.seen}", 60
        )

    def test_killed(self) -> None:
        """While Redis is away, every request to the application is answered by it, the pod stays ready and live, and
        what would be queued is refused with a time to come again. What was accepted is answered once Redis is back."""
        self.server.start()
        self.run_callers()
        self.until_more("straight", "queued: 202", "ready: 200")
        self.redis.kill()
        self.until_more("straight", "queued: 503", "ready: 200")
        self.assertEqual(self.server.ask("GET", "/_openhqm/health")[0], 503)
        self.redis.start()
        self.until_more("straight", "queued: 202", "ready: 200")
        self.over.set()
        wrong = set(self.seen) - {"straight", "queued: 202", "queued: 503", "live: 200", "ready: 200"}
        self.assertEqual(wrong, set(), self.seen)
        for correlation_id, number in list(self.accepted.items()):
            document = self.server.response(correlation_id, 20)
            self.assertEqual((document["status"], document["result"]), ("COMPLETED", str(number)))
        self.assertEqual(self.server.stop(), 0)

    def test_started_without(self) -> None:
        """A sidecar that starts while Redis is away serves the straight path at once."""
        self.redis.kill()
        self.server.start()
        self.assertEqual(self.server.ask("GET", "/pages/1")[2], b"/pages/1")
        self.assertEqual(self.server.ask("POST", "/reports/1", 1)[0], 503)
        self.redis.start()
        self.server.until(lambda: self.server.ask("POST", "/reports/1", 1)[0] == 202, "not accepted")
        self.assertEqual(self.server.stop(), 0)
