"""Callers that submit too often."""

from __future__ import annotations

import json
import shutil
import tempfile

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.config.limits import RateLimit, TenantLimits
from openhqm.config.tenants import Tenant
from openhqm.ingress.rate_limiting import RateLimiter, client_network, make_limiter
from openhqm.policy.api_keys import Caller, Role
from tests.servers import Server

JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}


class Connection:
    def __init__(self, host: str) -> None:
        self.peer_host, self.counted_as = host, None


class CallerTests(SynchronousTestCase):
    def limited(self, *requests: tuple[str, Caller | None]) -> list[bool]:
        """Which of the requests, each from an address and a caller, are refused where one is allowed."""
        limiter = make_limiter(RateLimit(1, 60.0), (), Clock(), lambda tenant: None)
        assert limiter is not None
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

    def test_forgotten(self) -> None:
        """A connection whose address was forgotten counts from then on as its address does, and not by itself."""
        limiter = make_limiter(RateLimit(1, 60.0), (), Clock(), lambda tenant: None)
        assert limiter is not None and limiter.limits[0].by_address is not None
        limiter.limits[0].by_address._most = 2
        first, again = Connection("192.0.2.1"), Connection("192.0.2.1")
        self.assertIsNone(limiter.take(None, first)[0])
        self.assertIsNotNone(limiter.take(None, again)[0])
        for host in ("192.0.2.2", "192.0.2.3"):
            self.assertIsNone(limiter.take(None, Connection(host))[0])
        self.assertIsNone(limiter.take(None, again)[0])
        self.assertIsNotNone(limiter.take(None, first)[0])


class TenantLimitsTests(SynchronousTestCase):
    """Limits of tenants beside those of callers"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.refused = 0

    def limiter(self, limit: RateLimit, *rows: Tenant) -> RateLimiter:
        def refused(tenant: str | None) -> None:
            self.refused += 1

        found = make_limiter(limit, rows, self.clock, refused)
        assert found is not None
        return found

    def take(self, limiter: RateLimiter, tenant: str, key: str, count: int = 1, size: int = 0) -> str | None:
        """What the caller is told where it is refused."""
        refusal, _ = limiter.take(Caller(tenant, frozenset(Role), key), Connection("192.0.2.1"), count, size)
        return None if refusal is None else refusal.detail

    def test_all_keys_of_a_tenant(self) -> None:
        """The keys of a tenant share its limits; other tenants are not held up by them."""
        limiter = self.limiter(RateLimit(), Tenant("acme", limits=TenantLimits(requests_per_second=2)))
        self.assertIsNone(self.take(limiter, "acme", "a"))
        self.assertIsNone(self.take(limiter, "acme", "b"))
        self.assertIn("of this tenant: at most 2 in a second", self.take(limiter, "acme", "c") or "")
        self.assertEqual(self.refused, 1)
        for _ in range(5):
            self.assertIsNone(self.take(limiter, "globex", "a"))
        self.clock.advance(0.5)
        self.assertIsNone(self.take(limiter, "acme", "c"))

    def test_others(self) -> None:
        """Each tenant without a row has the limits of the row for all of them, by itself."""
        limiter = self.limiter(RateLimit(), Tenant("*", limits=TenantLimits(requests_per_second=1)), Tenant("acme"))
        for tenant, refused in (("b", False), ("b", True), ("c", False), ("c", True)):
            self.assertEqual(self.take(limiter, tenant, "a") is not None, refused, tenant)
        for _ in range(5):
            self.assertIsNone(self.take(limiter, "acme", "a"), "its row has no limit")

    def test_bytes(self) -> None:
        """A body counts with all its bytes, also where it is larger than what is allowed in a second."""
        limiter = self.limiter(RateLimit(), Tenant("acme", limits=TenantLimits(bytes_per_second=1000)))
        self.assertIsNone(self.take(limiter, "acme", "a", size=5000))
        self.clock.advance(3.9)
        self.assertIn("at most 1000 bytes in a second", self.take(limiter, "acme", "a", size=1) or "")
        self.clock.advance(0.2)
        self.assertIsNone(self.take(limiter, "acme", "a", size=1))

    def test_none_is_taken_by_a_refusal(self) -> None:
        """A key beyond its own limit takes nothing from the other keys of its tenant, and the other way round."""
        limiter = self.limiter(
            RateLimit(requests=2, per_seconds=100.0), Tenant("acme", limits=TenantLimits(requests_per_second=3))
        )
        for _ in range(2):
            self.assertIsNone(self.take(limiter, "acme", "greedy"))
        for _ in range(10):
            self.assertIn("at most 2 in 100 s", self.take(limiter, "acme", "greedy") or "")
        self.assertIsNone(self.take(limiter, "acme", "other"))
        self.assertIn("of this tenant", self.take(limiter, "acme", "other") or "")
        self.clock.advance(1)
        self.assertIsNone(self.take(limiter, "acme", "other"))

    def test_told(self) -> None:
        """An answer tells of each limit under its name (draft-ietf-httpapi-ratelimit-headers-11, section 3)."""
        limits = TenantLimits(requests_per_second=0.1, bytes_per_second=100)
        limiter = self.limiter(RateLimit(requests=5), Tenant("acme", limits=limits))
        refusal, told = limiter.take(Caller("acme", frozenset(Role), "a"), Connection(""), 1, 30)
        self.assertIsNone(refusal)
        policies = b'"default";q=5;w=1, "tenant";q=1;w=10, "tenant-bytes";q=100;w=1;qu="content-bytes"'
        left = b'"default";r=4;t=1, "tenant";r=0;t=10, "tenant-bytes";r=70;t=1'
        self.assertEqual(told, ((b"RateLimit-Policy", policies), (b"RateLimit", left)))
        refusal, _ = limiter.take(Caller("acme", frozenset(Role), "a"), Connection(""), 1, 30)
        assert refusal is not None
        self.assertEqual(dict(refusal.fields)[b"Retry-After"], b"10")

    def test_hooks(self) -> None:
        """What has no caller, as a webhook, counts for the tenant that it is said to be of."""
        limiter = self.limiter(RateLimit(), Tenant("acme", limits=TenantLimits(requests_per_second=1)))
        found = [limiter.take(None, Connection("192.0.2.1"), tenant=name)[0] for name in ("acme", "acme", None)]
        self.assertEqual([each is not None for each in found], [False, True, False])


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
            self.assertEqual(json.loads(body)["title"], "Too Many Requests")
            self.assertIn("retry-after", fields)
        self.assertEqual(self.server.ask("GET", "/health/ready")[0], 200)
        self.assertIn(b'openhqm_submissions_total{outcome="limited"} 3.0', self.server.ask("GET", "/metrics")[2])
