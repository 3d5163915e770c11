"""Callers that submit too often."""

from __future__ import annotations

import json
import shutil
import tempfile
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.rate_limiting import RateLimiter, client_network
from openhqm.policy.api_keys import Caller, Role
from openhqm.policy.rate_limits import RateLimits
from tests.servers import Server

JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}


class Connection:
    def __init__(self, host: str) -> None:
        self.host = host

    def getPeer(self) -> Any:
        return self


class CallerTests(SynchronousTestCase):
    def limited(self, *requests: tuple[str, Caller | None]) -> list[bool]:
        """Which of the requests, each from an address and a caller, are refused where one is allowed."""
        limiter = RateLimiter(RateLimits(1, 60.0), Clock(), lambda: None)
        return [limiter.take(caller, Connection(host))[0] is not None for host, caller in requests]

    def test_address(self) -> None:
        """Where callers need no key, the network that a client cannot leave counts."""
        for first, second, same in (
            ("192.0.2.1", "192.0.2.1", True),
            ("192.0.2.1", "192.0.2.2", False),
            ("2001:db8::1", "2001:db8::ffff:1", True),
            ("2001:db8::1", "2001:db8:0:1::1", False),
            ("::ffff:192.0.2.1", "192.0.2.1", True),
        ):
            asked = self.limited((first, None), (second, None))
            self.assertEqual(asked, [False, same], (first, second))
        self.assertEqual(client_network("/run/socket"), b"")

    def test_caller(self) -> None:
        """Where they need one, the caller counts, wherever its requests are from: its tenant, and its key or login."""
        one, other = Caller("acme", frozenset(Role), "a"), Caller("acme", frozenset(Role), "b")
        same, elsewhere = Caller("acme", frozenset(), "a"), Caller("globex", frozenset(Role), "a")
        self.assertEqual(self.limited(("192.0.2.1", one), ("192.0.2.2", same)), [False, True])
        self.assertEqual(self.limited(("192.0.2.1", one), ("192.0.2.1", other)), [False, False])
        self.assertEqual(self.limited(("192.0.2.1", one), ("192.0.2.1", elsewhere)), [False, False])


class LimitedTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        limit = {"requests": 5, "per_seconds": 3600}
        self.server = Server(directory, OPENHQM_RATE_LIMIT=json.dumps(limit))
        self.server.start()
        self.addCleanup(self.server.stop)

    def test_told(self) -> None:
        """Each answer tells what is left; after the last one it is 429, by each way to submit; others are served."""
        left = []
        for _ in range(3):
            status, fields, _ = self.server.ask("POST", "/api/v1/submit", {"payload": 1}, JSON)
            self.assertEqual((status, fields["ratelimit-policy"]), (202, '"default";q=5;w=3600'))
            left.append(fields["ratelimit"].split(";")[1])
        self.assertEqual(left, ["r=4", "r=3", "r=2"])
        self.setUp()  # another process, in which nothing is taken
        for path, body, extra in (
            ("/api/v1/submit", {"more": 1}, JSON),
            ("/api/v1/submit", b"{", JSON),
            ("/api/v1/batch", b"{}", LINES),
            ("/api/v1/submit", {"more": 1}, {**JSON, "Accept": "text/event-stream"}),
        ):
            status, fields, _ = self.server.ask("POST", path, body, extra)
            self.assertIn(status, (400, 422))
            self.assertIn("ratelimit", fields, (path, body))
        self.setUp()
        for _ in range(3):
            self.server.ask("POST", "/api/v1/submit", {"payload": 1}, JSON)
        status, fields, body = self.server.ask("POST", "/api/v1/batch", b'{"payload":1}\n' * 3, LINES)
        self.assertEqual((status, json.loads(body)["status"]), (429, 429))
        self.assertGreaterEqual(int(fields["retry-after"]), 1)
        status, fields, _ = self.server.ask("POST", "/api/v1/batch", b'{"payload":1}\n' * 2, LINES)
        self.assertEqual((status, fields["ratelimit"].split(";")[1]), (202, "r=0"))
        for path, extra in (("/api/v1/submit", {}), ("/api/v1/submit", {"Accept": "text/event-stream"})):
            status, fields, body = self.server.ask("POST", path, {"payload": 1}, {**JSON, **extra})
            self.assertEqual((status, fields["content-type"]), (429, "application/problem+json"), body)
            self.assertIn("retry-after", fields)
        self.assertEqual(self.server.ask("GET", "/health/ready")[0], 200)
        self.assertIn(b'openhqm_submissions_total{outcome="limited"} 3.0', self.server.ask("GET", "/metrics")[2])
