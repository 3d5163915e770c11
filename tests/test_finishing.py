"""Targets of whole processes that finish a request later, while the processes are killed."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.servers import Server


class LaterTarget:
    """Answers each call with 202 and ``OpenHQM-Finish: later``, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(202)
                self.send_header("OpenHQM-Finish", "later")
                self.send_header("Content-Length", "0")
                self.end_headers()
                target.told.append({name.lower(): value for name, value in self.headers.items()})

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def is_parked(server: Server, id: str) -> bool:
    """Whether the request waits for its next attempt."""
    return "next_attempt_at" in json.loads(server.ask("GET", f"/api/v1/status/{id}")[2])


class KilledTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.target = LaterTarget()
        self.addCleanup(self.target.close)

    def server(self, role: str = "all", **more: str) -> Server:
        endpoints = {"OPENHQM_PROXY__ENABLED": "true"}
        endpoints["OPENHQM_PROXY__ENDPOINTS"] = json.dumps({"slow": {"url": self.target.url}})
        endpoints["OPENHQM_PROXY__DEFAULT_ENDPOINT"] = "slow"
        server = Server(self.directory, **endpoints, OPENHQM_QUEUE__LEASE_SECONDS="2", **more)
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        server.launch("--role", role)
        return server

    def until_ready(self, server: Server) -> None:
        server.until(lambda: server.ask("GET", "/health/ready")[0] == 200, "not ready")

    def parked(self, server: Server) -> tuple[str, dict[str, str]]:
        """The id of a request that its target finishes later, and the header field with its token."""
        id = server.submit(1)
        server.until(lambda: is_parked(server, id), "it was not put back")
        self.assertEqual([told["openhqm-correlation-id"] for told in self.target.told], [id])
        return id, {"OpenHQM-Complete-Token": self.target.told[0]["openhqm-complete-token"]}

    def finish(self, server: Server, id: str, token: dict[str, str]) -> None:
        self.assertEqual(server.ask("POST", f"/api/v1/progress/{id}", {"percent": 50}, token)[0], 204)
        self.assertEqual(server.ask("POST", f"/api/v1/complete/{id}", {"result": "late"}, token)[0], 204)
        self.assertEqual(server.ask("POST", f"/api/v1/complete/{id}", {"result": "again"}, token)[0], 409)
        document = server.response(id)
        self.assertEqual((document["status"], document["result"], document["attempt"]), ("COMPLETED", "late", 1))
        events = re.findall(rb"event: (\w+)", server.ask("GET", f"/api/v1/events/{id}")[2])
        self.assertEqual(events, [b"pending", b"processing", b"retrying", b"progress", b"completed"])
        self.assertEqual(len(self.target.told), 1)

    def test_one_process(self) -> None:
        """The process is killed while the target is at it: the token is good at the one that comes after it."""
        server = self.server()
        self.until_ready(server)
        id, token = self.parked(server)
        server.kill()
        server.launch("--role", "all")
        self.until_ready(server)
        self.finish(server, id, token)

    def test_worker(self) -> None:
        """The worker is killed while the target is at it, and its lease runs out: the listener takes the completion."""
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        store = {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": redis.url}
        listener, worker = self.server("listener", **store), self.server("worker", **store)
        self.until_ready(listener)
        id, token = self.parked(listener)
        worker.kill()
        again = self.server("worker", **store)
        other = listener.submit(2)  # which is worked on once the new worker is there
        listener.until(lambda: is_parked(listener, other), "it was not worked on")
        self.assertEqual(self.target.told.pop()["openhqm-correlation-id"], other)
        self.finish(listener, id, token)
        again.kill()
