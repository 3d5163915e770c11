"""The dead letters over HTTP: the same on every backend that needs no server."""

from __future__ import annotations

import json
from typing import Any

import attrs
from twisted.internet.defer import fail
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import InvalidRequest, MalformedJSON, NotDurable, Reject, UnknownRequest
from openhqm.ingress.dead_letter_changes import GROUP_BYTES
from openhqm.ingress.dead_letter_queries import read_drop, read_query, read_redrive
from openhqm.ingress.dead_letters import MOST_AT_ONCE, MOST_PAGES
from openhqm.ingress.routes import Routes
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
            *(({b"cursor": [value]}, "cursor") for value in (b"", b"x", b"1-", b"-1", b"1-2-3", b"1-2.5", b"1" * 21)),
        ):
            error = self.assertRaises(InvalidRequest, read_query, arguments)
            self.assertEqual(error.field, name, arguments)

    def test_redrive_refused(self) -> None:
        """A redrive needs a filter, which may be empty, and what else it has must be of its kind."""
        for body, name in (
            (b"{}", "filter"),
            (b'{"filter": null}', "filter"),
            (b'{"filter": []}', "filter"),
            (b'{"filter": {"x": 1}}', "filter.x"),
            (b'{"filter": {"endpoint": null}}', "filter.endpoint"),
            (b'{"filter": {"since": 1}}', "filter.since"),
            (b'{"filter": {"reason_class": "no"}}', "filter.reason_class"),
            (b'{"filter": {}, "all": true}', "all"),
            (b'{"filter": {}, "dry_run": "true"}', "dry_run"),
            (b'{"filter": {}, "dry_run": 1}', "dry_run"),
            *(
                (b'{"filter": {}, "rate": %b}' % rate, "rate")
                for rate in (b"0", b"-1", b"0.05", b"10001", b"true", b'"1"')
            ),
            *((b'{"filter": {}, "limit": %b}' % most, "limit") for most in (b"0", b"1001", b"1.5", b"true", b"null")),
            (b'{"filter": {}, "cursor": 1}', "cursor"),
        ):
            error = self.assertRaises(InvalidRequest, read_redrive, body)
            self.assertEqual(error.field, name, body)
        for body in (b"", b"[]", b'{"filter": {}, "filter": {}}', b'{"filter": {"since": "a", "since": "b"}}'):
            self.assertRaises(MalformedJSON, read_redrive, body)

    def test_drop_refused(self) -> None:
        """All are dropped only where that is said, so that a filter that was left out drops none."""
        for arguments, name in (
            ({}, "all"),
            ({b"all": [b"false"]}, "all"),
            ({b"limit": [b"5"]}, "all"),
            ({b"all": [b"true"], b"endpoint": [b"a"]}, "all"),
            ({b"all": [b"1"]}, "all"),
            ({b"all": [b"true"], b"dry_run": [b""]}, "dry_run"),
            ({b"all": [b"true"], b"dry_run": [b"false", b"false"]}, "dry_run"),
            ({b"all": [b"true"], b"dryrun": [b"true"]}, "dryrun"),
            ({b"all": [b"true"], b"rate": [b"1"]}, "rate"),
        ):
            error = self.assertRaises(InvalidRequest, read_drop, arguments)
            self.assertEqual(error.field, name, arguments)


class ServerTests(SynchronousTestCase):
    """The routes, on a server in memory"""

    def setUp(self) -> None:
        self.server = InMemoryServer(True)

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        answer = self.server.ask(method, target, body, host="localhost:8000", **headers)
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content) if content else None

    def make_letters(self, count: int, size: int) -> None:
        for _ in range(count):
            self.server.bench.submit(b'"%b"' % (size * b"x"))
            self.server.handler.answers[-1].callback(object())
            self.server.bench.backend.turn()

    def test_only_local(self) -> None:
        """Every route refuses a request that a proxy has passed on, before anything is done."""
        self.make_letters(1, 1)
        routes = [
            (method, rule.rule.replace("<number>", "1"))
            for rule in Routes.app.url_map.iter_rules()
            for method in rule.methods or ()
            if "dead-letters" in rule.rule and method not in ("HEAD", "OPTIONS")
        ]
        self.assertEqual(len(routes), 6)
        for method, path in routes:
            status, document = self.ask(
                method, path, b'{"filter": {}}', content_type="application/json", x_forwarded_for="203.0.113.9"
            )
            self.assertEqual(status, 403, (method, path))
            self.assertIn("came through a proxy", document["detail"])
        self.assertEqual(len(self.ask("GET", "/api/v1/dead-letters")[1]["dead_letters"]), 1)

    def test_switched_off(self) -> None:
        """Where they are switched off every route is a 404, whoever asks."""
        routes: Any = self.server.routes
        routes._dead_letters = None
        for method, path in (
            ("GET", ""),
            ("DELETE", "?all=true"),
            ("GET", "/1"),
            ("DELETE", "/1"),
            ("POST", "/redrive"),
        ):
            status, document = self.ask(method, f"/api/v1/dead-letters{path}", content_type="application/json")
            self.assertEqual((status, "admin.enabled" in document["detail"]), (404, True), (method, path))

    def test_no_forms(self) -> None:
        """A form of another page can send no JSON, and whatever else it sends changes nothing."""
        self.make_letters(1, 1)
        for path in ("redrive", "1/redrive"):
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
                status, _ = self.ask("POST", f"/api/v1/dead-letters/{path}", b'{"filter": {}}', content_type=kind)
                self.assertEqual(status, 415, (path, kind))
            self.assertEqual(self.ask("POST", f"/api/v1/dead-letters/{path}", b'{"filter": {}}')[0], 415)
        self.assertEqual(len(self.ask("GET", "/api/v1/dead-letters")[1]["dead_letters"]), 1)

    def redrive(self, **members: Any) -> Any:
        body = json.dumps({"filter": {}, **members}).encode()
        status, found = self.ask("POST", "/api/v1/dead-letters/redrive", body, content_type="application/json")
        self.assertEqual(status, 200, found)
        return found

    def test_rate(self) -> None:
        """At a rate each waits its time, also the first of an answer, and one answer takes a few seconds at most."""
        self.server.bench.backend.step = 0.25
        self.make_letters(30, 1)
        self.server.bench.pass_time(1)
        self.assertEqual(
            self.server.ask(
                "POST",
                "/api/v1/dead-letters/redrive",
                b'{"filter":{},"rate":2}',
                host="localhost",
                content_type="application/json",
            ),
            b"",
        )
        for second in range(1, 5):
            self.server.bench.pass_time(1)
            self.assertEqual(len(self.server.bench.letters()), 30 - 2 * second)
        self.server.bench.pass_time(1.5)
        found = json.loads(self.server.take().partition(b"\r\n\r\n")[2])
        self.assertEqual((found["count"], found["cursor"].partition("-")[0]), (10, "10"))
        self.assertEqual(len(self.ask("GET", "/api/v1/dead-letters")[1]["dead_letters"]), 20)

    def test_slow_rate(self) -> None:
        """At the slowest rate an answer redrives one."""
        self.make_letters(2, 1)
        self.server.bench.pass_time(1)
        self.server.ask(
            "POST",
            "/api/v1/dead-letters/redrive",
            b'{"filter":{},"rate":0.1}',
            host="localhost",
            content_type="application/json",
        )
        self.server.bench.pass_time(11)
        found = json.loads(self.server.take().partition(b"\r\n\r\n")[2])
        self.assertEqual((found["count"], found["cursor"].partition("-")[0]), (1, "1"))

    def test_client_that_leaves(self) -> None:
        """Once its client has gone, a redrive goes no further."""
        self.make_letters(20, 1)
        self.server.bench.pass_time(1)
        self.server.ask(
            "POST",
            "/api/v1/dead-letters/redrive",
            b'{"filter":{},"rate":1}',
            host="localhost",
            content_type="application/json",
        )
        self.server.bench.pass_time(2.5)
        self.server.protocol.connectionLost(Failure(ConnectionDone()))
        self.server.bench.pass_time(10)
        self.assertEqual(len(self.server.bench.letters()), 18)

    def test_store_away(self) -> None:
        """Where the store cannot change one of them now, the answer names those before it, and where to go on."""
        self.make_letters(3, 1)
        self.server.bench.pass_time(1)
        queue: Any = self.server.bench.backend.queue
        redrive = queue.redrive
        queue.redrive = lambda number: redrive(number) if number < 3 else fail(NotDurable("no disk"))
        found = self.redrive()
        self.assertEqual((found["count"], found["cursor"].partition("-")[0]), (2, "2"))
        status, problem = self.ask(
            "POST", "/api/v1/dead-letters/redrive", b'{"filter": {}}', content_type="application/json"
        )
        self.assertEqual((status, "no disk" in problem["detail"]), (503, False))

    def test_too_large(self) -> None:
        """One that has become too large for the queue is refused by name, and the others are redriven."""
        self.make_letters(1, 10)
        self.make_letters(1, 1000)
        self.make_letters(1, 10)
        self.server.bench.pass_time(1)
        queue: Any = self.server.bench.backend.queue
        queue.traits = attrs.evolve(queue.traits, largest_message=900)
        found = self.redrive()
        self.assertEqual([letter["number"] for letter in found["dead_letters"]], [1, 3])
        self.assertEqual([letter["number"] for letter in found["refused"]], [2])
        self.assertEqual(self.ask("POST", "/api/v1/dead-letters/2/redrive", content_type="application/json")[0], 409)

    def test_no_workers(self) -> None:
        """What no worker would take is refused, in a dry run as well, and stays a dead letter: a redriven request would
        wait for ever."""
        self.make_letters(1, 1)
        self.server.bench.pass_time(1)
        letters: Any = self.server.dead_letters
        letters._is_worked = lambda submission: False
        for dry_run in (True, False):
            found = self.redrive(dry_run=dry_run)
            self.assertEqual((found["count"], found["cursor"]), (0, None))
            (refused,) = found["refused"]
            self.assertIn("no workers are configured", refused["detail"])
        status, problem = self.ask("POST", "/api/v1/dead-letters/1/redrive", content_type="application/json")
        self.assertEqual((status, problem["detail"]), (409, refused["detail"]))
        self.assertEqual(len(self.server.bench.letters()), 1)

    def test_refused_once(self) -> None:
        """From answer to answer, what is refused is named once, also where an answer ends before it."""
        self.make_letters(4, 10)
        self.make_letters(1, 1000)
        self.server.bench.pass_time(1)
        queue: Any = self.server.bench.backend.queue
        queue.traits = attrs.evolve(queue.traits, largest_message=900)
        redrive = queue.redrive
        queue.redrive = lambda number: redrive(number) if number < 3 else fail(NotDurable("no disk"))
        first = self.redrive()
        queue.redrive = redrive
        second = self.redrive(cursor=first["cursor"])
        numbers = [[letter["number"] for letter in found["refused"]] for found in (first, second)]
        self.assertEqual((first["count"], second["count"], numbers), (2, 2, [[], [5]]))

    def test_groups(self) -> None:
        """Without a rate many travel together, but no more than a few mebibytes of them: each is read whole."""
        for size, most in ((1, MOST_AT_ONCE), (GROUP_BYTES // 4 - 2, 4), (GROUP_BYTES + 1, 1)):
            self.server = InMemoryServer(True)
            self.make_letters(MOST_AT_ONCE + 1 if size == 1 else 6, size)
            self.server.bench.pass_time(1)
            queue: Any = self.server.bench.backend.queue
            redrive, asked = queue.redrive, []

            def slow(number: int, redrive: Any = redrive, asked: list[int] = asked) -> Any:
                asked.append(number)
                return deferLater(self.server.bench.backend.clock, 1, redrive, number)

            queue.redrive = slow
            body = b'{"filter": {}}'
            self.server.ask(
                "POST", "/api/v1/dead-letters/redrive", body, host="localhost", content_type="application/json"
            )
            self.assertEqual(len(asked), most)
            self.server.bench.pass_time(1)
            self.assertEqual(len(asked), min(2 * most, MOST_AT_ONCE + 1 if size == 1 else 6))

    def test_taken_meanwhile(self) -> None:
        """One that another process takes between the look and the step is passed over."""
        self.make_letters(3, 1)
        self.server.bench.pass_time(1)
        queue: Any = self.server.bench.backend.queue
        redrive = queue.redrive
        queue.redrive = lambda number: redrive(number) if number != 2 else fail(UnknownRequest("dead letter 2"))
        self.assertEqual([letter["number"] for letter in self.redrive()["dead_letters"]], [1, 3])

    def test_no_other_origin(self) -> None:
        """A page of another origin is not told that it may ask (Fetch standard, section 3.3)."""
        answer = self.server.ask("OPTIONS", "/api/v1/dead-letters", host="localhost", origin="https://evil.example")
        self.assertIn(b" 405 ", answer)
        self.assertNotIn(b"Access-Control", answer)

    def test_bounded(self) -> None:
        """One answer looks at a bounded part of what is stored, however little of it matches."""
        self.make_letters(MOST_PAGES + 5, DEAD_LETTER_PAGE_BYTES)
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
