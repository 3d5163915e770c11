"""Callers that submit too often."""

from __future__ import annotations

import json
import shutil
import tempfile
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.rate_limiting import RateLimiter, client_network
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
    def test_who(self) -> None:
        """With credentials the credential counts, and without them the network that a client cannot leave."""
        for by_credential, first, second, same in (
            (False, ("192.0.2.1", b"a"), ("192.0.2.1", b"b"), True),
            (False, ("192.0.2.1", None), ("192.0.2.2", None), False),
            (False, ("2001:db8::1", None), ("2001:db8::ffff:1", None), True),
            (False, ("2001:db8::1", None), ("2001:db8:0:1::1", None), False),
            (False, ("::ffff:192.0.2.1", None), ("192.0.2.1", None), True),
            (True, ("192.0.2.1", b"a"), ("192.0.2.2", b"a"), True),
            (True, ("192.0.2.1", b"a"), ("192.0.2.1", b"b"), False),
            (True, ("192.0.2.1", None), ("192.0.2.2", None), False),
        ):
            limiter = RateLimiter(RateLimits(1, 60.0), Clock(), by_credential, lambda: None)
            refusals = []
            for host, key in (first, second):
                fields = [] if key is None else [(b"openhqm-key", key)]
                refusals.append(limiter.take(fields, Connection(host))[0])
            self.assertEqual([each is not None for each in refusals], [False, same], (by_credential, first, second))
        self.assertEqual(client_network("/run/socket"), b"")


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
