"""The JSON documents of the HTTP contract."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.documents import acceptance_document, event_document, response_document, status_document
from openhqm.messages import Acceptance, Event, Record, Reply, Status
from tests import hypothesis_profile  # noqa: F401

ID = "550e8400-e29b-41d4-a716-446655440000"
AT, FORMATTED = 1770460200.0, "2026-02-07T10:30:00.000Z"
LATER, FORMATTED_LATER = 1770460205.25, "2026-02-07T10:30:05.250Z"
REPLY = Reply(ID, Status.COMPLETED, LATER, b'{"b": 1e400, "a":[1.0]}', attempt=2, processing_time_ms=1250)


def read(document: bytes) -> Any:
    return json.loads(document)


class DocumentsTests(SynchronousTestCase):
    """`openhqm.delivery.documents`"""

    def test_acceptance(self) -> None:
        """A 202 has the id, PENDING, and the time of submission (SDD 9.1)."""
        self.assertEqual(
            read(acceptance_document(Acceptance(ID, AT))),
            {"correlation_id": ID, "status": "PENDING", "submitted_at": FORMATTED},
        )

    def test_status(self) -> None:
        """A status has the attempt (SDD 9.2), and the times of the next attempt and of expiry where there are any."""
        record = Record(ID, Status.PROCESSING, AT, LATER, attempt=1)
        document = {
            "correlation_id": ID,
            "status": "PROCESSING",
            "submitted_at": FORMATTED,
            "updated_at": FORMATTED_LATER,
            "attempt": 1,
        }
        self.assertEqual(read(status_document(record)), document)
        self.assertEqual(
            read(status_document(replace(record, next_attempt_at=LATER, expires_at=LATER))),
            {**document, "next_attempt_at": FORMATTED_LATER, "expires_at": FORMATTED_LATER},
        )

    def test_response(self) -> None:
        """A response has the status code and headers of `/body` (SDD 9.3), and the result byte for byte."""
        document = response_document(replace(REPLY, headers={"X-A": "b"}, status_code=201), AT)
        self.assertIn(b'"result":{"b": 1e400, "a":[1.0]},', document)
        found = read(document)
        del found["result"]
        self.assertEqual(
            found,
            {
                "correlation_id": ID,
                "status": "COMPLETED",
                "status_code": 201,
                "headers": {"X-A": "b"},
                "error": None,
                "attempt": 2,
                "processing_time_ms": 1250,
                "completed_at": FORMATTED_LATER,
                "expires_at": FORMATTED,
            },
        )

    def test_no_result(self) -> None:
        """A failure has an error, and a result of null."""
        found = read(response_document(Reply(ID, Status.FAILED, AT, error="no such customer")))
        self.assertEqual((found["status"], found["result"], found["error"]), ("FAILED", None, "no such customer"))
        self.assertNotIn("expires_at", found)
        self.assertNotIn("reason_class", found)

    def test_reason_class(self) -> None:
        """Where a program can tell why it failed, the response says it in a word."""
        reply = Reply(ID, Status.FAILED, AT, error="the queue was full", reason_class="overflow")
        self.assertEqual(read(response_document(reply))["reason_class"], "overflow")

    @given(st.binary(max_size=20))
    def test_bytes(self, body: bytes) -> None:
        """A body that is UTF-8 is a string in the document; any other body is served by `/body` only."""
        found = read(response_document(replace(REPLY, result=None, body=body)))
        try:
            self.assertEqual(found["result"], body.decode())
        except UnicodeDecodeError:
            self.assertIsNone(found["result"])


class EventDocumentTests(SynchronousTestCase):
    """`event_document`"""

    def test_before_the_ending(self) -> None:
        """An event names its request, the status, the time, and its own details."""
        for event, expected in (
            (Event(1, "pending", AT), {"status": "PENDING"}),
            (Event(2, "processing", AT, {"attempt": 1}), {"status": "PROCESSING", "attempt": 1}),
            (Event(3, "progress", AT, {"done": [1, 2]}), {"status": "PROCESSING", "done": [1, 2]}),
            (
                Event(4, "retrying", AT, {"attempt": 1, "error": "e", "next_attempt_at": LATER}),
                {"status": "PROCESSING", "attempt": 1, "error": "e", "next_attempt_at": FORMATTED_LATER},
            ),
        ):
            self.assertEqual(read(event_document(ID, event)), {"correlation_id": ID, "at": FORMATTED, **expected})

    def test_own_members(self) -> None:
        """Progress that a handler reports cannot replace the gateway's own members."""
        detail = {"status": "COMPLETED", "correlation_id": "other", "at": "never", "done": 1}
        self.assertEqual(
            read(event_document(ID, Event(2, "progress", AT, detail))),
            {"correlation_id": ID, "status": "PROCESSING", "at": FORMATTED, "done": 1},
        )

    @given(
        st.dictionaries(
            st.text(max_size=3) | st.sampled_from(["next_attempt_at", "attempt", "error", "reply"]),
            st.none() | st.text(max_size=3) | st.integers(-(2**63), 2**63) | st.lists(st.booleans(), max_size=2),
            max_size=4,
        )
    )
    def test_any_progress(self, detail: dict[str, Any]) -> None:
        """Progress of any names and values is sent, and cannot break its stream."""
        found = read(event_document(ID, Event(2, "progress", AT, detail)))
        own = ("correlation_id", "status", "at")
        self.assertEqual(
            {name: found[name] for name in detail if name not in own},
            {name: value for name, value in detail.items() if name not in own},
        )

    def test_ending(self) -> None:
        """The ending event carries the response document."""
        self.assertEqual(event_document(ID, Event(3, "completed", AT, reply=REPLY)), response_document(REPLY))

    def test_large_ending(self) -> None:
        """A result beyond the limit of a stream is left out, and the event says so."""
        for large in ({"result": b'"%b"' % (b"x" * 65536)}, {"result": None, "body": b"x" * 65536}):
            document = event_document(ID, Event(3, "completed", AT, reply=replace(REPLY, **large)))
            self.assertLess(len(document), 1000)
            found = read(document)
            self.assertIs(found["truncated"], True)
            self.assertNotIn("result", found)
            self.assertEqual(
                (found["correlation_id"], found["status"], found["completed_at"]), (ID, "COMPLETED", FORMATTED_LATER)
            )
