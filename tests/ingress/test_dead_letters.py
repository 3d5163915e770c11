"""The dead letters over HTTP: the same on every backend that needs no server."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import InvalidRequest, Reject
from openhqm.ingress.dead_letter_queries import read_query
from openhqm.ingress.dead_letters import MOST_PAGES
from openhqm.interfaces import DEAD_LETTER_PAGE_BYTES
from tests.benches import brokered_bench, memory_bench, sqlite_bench
from tests.ingress.dead_letter_contract import dead_letter_contract
from tests.ingress.test_fast_path import InMemoryServer


class MemoryTests(dead_letter_contract(memory_bench)):  # type: ignore[misc]
    """Over the memory backend"""


class SqliteTests(dead_letter_contract(sqlite_bench)):  # type: ignore[misc]
    """Over the embedded file"""


class BrokeredTests(dead_letter_contract(brokered_bench)):  # type: ignore[misc]
    """Over a broker with the embedded file as its ledger"""


class QueryTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """What is unknown, of the wrong form or given twice is refused by its name."""
        for arguments, name in (
            ({b"x": [b"1"]}, "x"),
            ({b"\xff": [b"1"]}, "\ufffd"),
            ({b"endpoint": [b"a", b"b"]}, "endpoint"),
            ({b"endpoint": [b"\xff"]}, "endpoint"),
            ({b"reason_class": [b"Poison"]}, "reason_class"),
            ({b"reason_class": [b""]}, "reason_class"),
            ({b"since": [b"yesterday"]}, "since"),
            ({b"since": [b"2026-11-27"]}, "since"),
            *(({b"limit": [value]}, "limit") for value in (b"0", b"-1", b"1001", b"1e2", b"", b"9" * 5000)),
            *(({b"cursor": [value]}, "cursor") for value in (b"", b"x", b"1-", b"-1", b"1-2-3", b"1" * 21)),
        ):
            error = self.assertRaises(InvalidRequest, read_query, arguments)
            self.assertEqual(error.field, name, arguments)


class ServerTests(SynchronousTestCase):
    """The routes, on a server in memory"""

    def setUp(self) -> None:
        self.server = InMemoryServer(True)

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        answer = self.server.ask(method, target, body, host="localhost:8000", **headers)
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content) if content else None

    def fail(self, count: int, size: int) -> None:  # type: ignore[override]
        for _ in range(count):
            self.server.bench.submit(b'"%b"' % (size * b"x"))
            self.server.handler.answers[-1].callback(object())
            self.server.bench.backend.turn()

    def test_only_local(self) -> None:
        """Every route refuses a request that a proxy has passed on, before anything is done."""
        for method, path in (("GET", ""), ("GET", "/1")):
            status, document = self.ask(method, f"/api/v1/dead-letters{path}", x_forwarded_for="203.0.113.9")
            self.assertEqual(status, 403, (method, path))
            self.assertIn("came through a proxy", document["detail"])

    def test_no_other_origin(self) -> None:
        """A page of another origin is not told that it may ask (Fetch standard, section 3.3)."""
        answer = self.server.ask("OPTIONS", "/api/v1/dead-letters", host="localhost", origin="https://evil.example")
        self.assertIn(b" 405 ", answer)
        self.assertNotIn(b"Access-Control", answer)

    def test_bounded(self) -> None:
        """One answer looks at a bounded part of what is stored, however little of it matches."""
        self.fail(MOST_PAGES + 5, DEAD_LETTER_PAGE_BYTES)
        status, first = self.ask("GET", "/api/v1/dead-letters?reason_class=poison")
        self.assertEqual((status, first), (200, {"dead_letters": [], "cursor": str(MOST_PAGES)}))
        status, rest = self.ask("GET", f"/api/v1/dead-letters?reason_class=poison&cursor={first['cursor']}")
        self.assertEqual((status, rest), (200, {"dead_letters": [], "cursor": None}))

    def test_long_errors(self) -> None:
        """A list has the beginning of an error, and one dead letter all of it."""
        self.server.bench.submit()
        self.server.handler.answers[-1].errback(Reject("x" * 100_000))
        (letter,) = self.ask("GET", "/api/v1/dead-letters")[1]["dead_letters"]
        self.assertLess(len(letter["error"]), 600)
        self.assertGreater(len(self.ask("GET", f"/api/v1/dead-letters/{letter['number']}")[1]["error"]), 600)
