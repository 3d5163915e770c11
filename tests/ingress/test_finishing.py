"""The routes for targets that finish a request later."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.history import MOST_DETAIL_BYTES
from tests.ingress.test_fast_path import InMemoryServer

UNKNOWN = "11111111-1111-4111-8111-111111111111"
DONE = b'{"result": {"a":  1.10}}'


class FinishingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = InMemoryServer(True)
        self.request = self.submit()

    def submit(self) -> str:
        answer = self.server.ask("POST", "/api/v1/submit", b'{"payload":1}', content_type="application/json")
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["correlation_id"])

    def token(self, id: str) -> str:
        return str(self.server.door.store.completion_token(id))

    def post(self, what: str, id: str, token: str | None, body: bytes = DONE, **fields: str) -> tuple[int, Any]:
        fields = {"content_type": "application/json", **fields}
        if token is not None:
            fields["openhqm_complete_token"] = token
        answer = self.server.ask("POST", f"/api/v1/{what}/{id}", body, **fields)
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content) if content else None

    def get(self, path: str) -> Any:
        return json.loads(self.server.ask("GET", path).partition(b"\r\n\r\n")[2])

    def test_complete(self) -> None:
        """The request ends with the target's result, byte for byte, its status code and its header fields."""
        body = b'{"result": {"a":  1.10}, "status_code": 201, "headers": {"Content-Language": "de"}}'
        self.assertEqual(self.post("complete", self.request, self.token(self.request), body), (204, None))
        document = self.get(f"/api/v1/response/{self.request}")
        self.assertEqual((document["status"], document["status_code"], document["attempt"]), ("COMPLETED", 201, 1))
        raw = self.server.ask("GET", f"/api/v1/response/{self.request}/body")
        self.assertTrue(raw.startswith(b"HTTP/1.1 201"), raw)
        self.assertIn(b"content-language: de", raw.lower())
        self.assertTrue(raw.endswith(b'\r\n\r\n{"a":  1.10}'), raw)

    def test_progress(self) -> None:
        """Progress is an event of the request, as that of a handler; the token stays good."""
        for percent in (10, 90):
            report = b'{"percent": %d, "attempt": 7, "status": "mine"}' % percent
            self.assertEqual(self.post("progress", self.request, self.token(self.request), report), (204, None))
        self.assertEqual(self.post("complete", self.request, self.token(self.request), b"{}"), (204, None))
        events = self.server.ask("GET", f"/api/v1/events/{self.request}")
        self.assertEqual(events.count(b"event: progress"), 2)
        self.assertIn(b'"percent":90,"attempt":1,"status":"PROCESSING"', events)
        self.assertIsNone(self.get(f"/api/v1/response/{self.request}")["result"])

    def test_tokens(self) -> None:
        """A token is good for its request, until that has ended. Without a good one nothing is told of an id."""
        other = self.submit()
        good = self.token(self.request)
        for what in ("progress", "complete"):
            for case, id, token, status in (
                ("none", self.request, None, 403),
                ("an empty one", self.request, "", 403),
                ("a wrong one", self.request, "x" * 32, 403),
                ("that of another request", self.request, self.token(other), 403),
                ("in other case", self.request, good.swapcase(), 403),
                ("cut short", self.request, good[:-1], 403),
                ("a long one", self.request, good * 200, 403),
                ("not ASCII", self.request, "tök", 400),
                ("twice in one field", self.request, f"{good}, {good}", 403),
                ("a wrong one for an unknown request", UNKNOWN, good, 403),
                ("its own for an unknown request", UNKNOWN, self.token(UNKNOWN), 404),
                ("good", self.request, good, 204),
                ("in capitals", other.upper(), self.token(other), 204),
            ):
                self.assertEqual(self.post(what, id, token)[0], status, (what, case))
        for what in ("progress", "complete"):
            status, found = self.post(what, self.request, good)
            self.assertEqual((status, found["request_status"]), (409, "COMPLETED"), what)
        self.assertEqual(self.post("complete", self.request, self.token(other))[0], 403)
        cancelled = self.submit()
        self.server.ask("POST", f"/api/v1/cancel/{cancelled}")
        status, found = self.post("complete", cancelled, self.token(cancelled))
        self.assertEqual((status, found["request_status"]), (409, "CANCELLED"))
        texts = {self.post("complete", id, "x")[1]["detail"] for id in (self.request, UNKNOWN, cancelled)}
        self.assertEqual(len(texts), 1)

    def test_bodies(self) -> None:
        """What is no completion, and no progress, is refused, and the request goes on."""
        for what, body, status, field in (
            ("complete", b"", 400, None),
            ("complete", b"[]", 400, None),
            ("complete", b'{"result": 1', 400, None),
            ("complete", b'{"result": 1, "result": 2}', 400, None),
            ("complete", b'{"more": 1}', 422, "more"),
            ("complete", b'{"status_code": 404}', 422, "status_code"),
            ("complete", b'{"status_code": 199}', 422, "status_code"),
            ("complete", b'{"status_code": "200"}', 422, "status_code"),
            ("complete", b'{"status_code": null}', 422, "status_code"),
            ("complete", b'{"headers": 7}', 422, "headers"),
            ("complete", b'{"headers": {"a b": "c"}}', 422, "headers.a b"),
            ("complete", b'{"headers": {"a": "b\\r\\nc: d"}}', 422, "headers.a"),
            ("progress", b"", 400, None),
            ("progress", b"7", 400, None),
            ("progress", b'{"a": 1, "a": 2}', 400, None),
            ("progress", b'{"a": 1', 400, None),
            ("progress", b'{"a": "%b"}' % (b"x" * MOST_DETAIL_BYTES), 422, "progress"),
        ):
            found = self.post(what, self.request, self.token(self.request), body)
            self.assertEqual((found[0], found[1].get("field")), (status, field), (what, body[:60]))
        for fields in ({"content_type": "text/plain"}, {"content_encoding": "gzip"}):
            for what in ("complete", "progress"):
                self.assertEqual(self.post(what, self.request, self.token(self.request), **fields)[0], 415)
        self.assertEqual(self.get(f"/api/v1/status/{self.request}")["status"], "PROCESSING")
