"""The table from an error to its status code, and the problem documents of RFC 9457."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import (
    AlreadyEnded,
    CannotStart,
    Complaint,
    ConfigurationError,
    DeliveryClosed,
    ExpiredRequest,
    IdempotencyConflict,
    InvalidRequest,
    MalformedJSON,
    MessageTooLarge,
    NotDurable,
    OpenHQMError,
    QueueFull,
    UnknownRequest,
    UnreadableMessage,
)
from openhqm.ingress.answers import Answer, HTTPProblem, field, problem, problem_for

HERE = "/api/v1/status/7f9c"
# RFC 9110, section 15, and RFC 6585, section 5: every status that is answered with a problem
PHRASES = {
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    422: "Unprocessable Content",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


class ProblemTests(SynchronousTestCase):
    """`problem` and `problem_for`"""

    def document(self, answer: Answer) -> dict[str, Any]:
        """The members of a problem document that RFC 9457 does not require. The required ones are checked."""
        self.assertEqual(answer.content_type, b"application/problem+json")
        document: dict[str, Any] = json.loads(answer.body)
        self.assertEqual(document["status"], answer.status)
        self.assertEqual(document["type"], "about:blank")
        self.assertTrue(document["detail"])
        return document

    def test_one_row_per_error(self) -> None:
        """Each error has its status, its text, and the members on which a program can act."""
        for error, status, members in (
            (MalformedJSON("not JSON"), 400, {"detail": "not JSON"}),
            (UnknownRequest("7f9c"), 404, {"correlation_id": "7f9c"}),
            (AlreadyEnded("7f9c", "FAILED"), 409, {"correlation_id": "7f9c", "request_status": "FAILED"}),
            (ExpiredRequest("7f9c"), 410, {"correlation_id": "7f9c"}),
            (MessageTooLarge(300, 256), 413, {"largest_message": 256}),
            (InvalidRequest("metadata.timeout", "is odd"), 422, {"field": "metadata.timeout"}),
            (InvalidRequest("metadata.timeout", "is odd"), 422, {"detail": "metadata.timeout: is odd"}),
            (IdempotencyConflict("k"), 422, {}),
            (NotDurable("disk full"), 503, {}),
            (QueueFull("queue.limits.requests: 5 of 5"), 503, {}),
            (HTTPProblem(415, "only JSON"), 415, {"detail": "only JSON"}),
        ):
            answer = problem_for(error, HERE)
            document = self.document(answer)
            self.assertEqual((answer.status, document["title"]), (status, PHRASES[status]), error)
            self.assertEqual(document["instance"], HERE)
            self.assertEqual(document, {**document, **members})

    def test_a_way_out(self) -> None:
        """A 503 says when to repeat the request, and under the same key. It does not name the reason."""
        answer = problem_for(NotDurable("cannot write /srv/secret/openhqm.db", retry_after=7), HERE)
        self.assertEqual([(name.lower(), value) for name, value in answer.fields], [(b"retry-after", b"7")])
        self.assertIn("Idempotency-Key", self.document(answer)["detail"])
        self.assertNotIn(b"secret", answer.body)

    def test_not_known(self) -> None:
        """Where the store took the step and did not answer, a 503 does not say that nothing was stored."""
        document = self.document(problem_for(NotDurable("Redis did not answer", maybe_done=True), HERE))
        self.assertIn("not known whether this was stored", document["detail"])
        self.assertIn("Idempotency-Key is done once", document["detail"])

    def test_nothing_leaks(self) -> None:
        """An internal error is a 500 that tells the caller nothing about it."""
        for error in (
            OpenHQMError("secret"),
            CannotStart("secret"),
            DeliveryClosed("secret", "secret"),
            UnreadableMessage("secret"),
            ConfigurationError([Complaint("secret", "secret")]),
        ):
            answer = problem_for(error, HERE)
            self.assertEqual(answer.status, 500)
            self.document(answer)
            self.assertNotIn(b"secret", answer.body)

    def test_titles(self) -> None:
        """With ``about:blank`` the title is the phrase of the status (RFC 9457, section 4.2.1)."""
        for status, phrase in PHRASES.items():
            self.assertEqual(self.document(problem(status, "x"))["title"], phrase, status)

    def test_members(self) -> None:
        """The instance is optional, and header fields go with the answer."""
        answer = problem(405, "no", fields=((b"allow", b"GET"),), more=1)
        self.assertEqual(answer.fields, ((b"allow", b"GET"),))
        document = self.document(answer)
        self.assertNotIn("instance", document)
        self.assertEqual(document["more"], 1)

    def test_unknown_and_foreign(self) -> None:
        """The answers for two unknown ids differ only in the id."""
        one, two = (problem_for(UnknownRequest(key), f"/{key}").body for key in ("aaaa", "bbbb"))
        self.assertEqual(one.replace(b"aaaa", b"bbbb"), two)


class FieldTests(SynchronousTestCase):
    """`field`"""

    def test_text(self) -> None:
        """A header field is text without surrounding blanks, or None."""
        fields = {b"accept": b" */* ", b"empty": b""}
        self.assertEqual([field(fields.get, name) for name in (b"accept", b"empty", b"other")], ["*/*", "", None])

    def test_not_ascii(self) -> None:
        """A header field that is not ASCII is a 400 that names it."""
        error: Any = self.assertRaises(HTTPProblem, field, {b"prefer": b"\xff"}.get, b"prefer")
        self.assertEqual((error.status, "prefer" in error.detail), (400, True))
