"""What a step is sent: the template of a caller, filled from what the steps before have resulted in."""

from __future__ import annotations

import time
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import Reject
from openhqm.messages import DeadLetter, Reply, Request, Status, Submission
from openhqm.policy.children import MOST_COPIED_BYTES
from openhqm.policy.redrive import redriven
from openhqm.policy.step_payloads import MOST_TEMPLATE_CHARACTERS, WHOLE, step_template, with_payload


def request(transform: str | None = WHOLE, result: bytes | None = b"1", **reply: Any) -> Request:
    submission = Submission(
        b"null",
        {"X-Kind": "a"},
        {"region": "eu"},
        transform=transform,
        parent_reply=Reply("before", Status.COMPLETED, 5.0, result, **reply),
    )
    return Request("this", 1.0, submission)


def payload(transform: str, result: bytes | None) -> bytes:
    return with_payload(request(transform, result)).submission.payload


class PayloadTests(SynchronousTestCase):
    def test_whole(self) -> None:
        """Without a template it is all of the result, byte for byte; null where there is none."""
        for result in (b"1", b'{"n": 12345678901234567890.10,  "a":[ ]}', b'"\\u00e9"'):
            self.assertEqual(payload(WHOLE, result), result)
        self.assertEqual(payload(WHOLE, None), b"null")

    def test_fields(self) -> None:
        """A template has the fields of the result as ``payload``, and the request's metadata and header fields."""
        text = '{"sum": {{ payload.total }}, "to": "mr {{payload.name | text}}",'
        text += ' "in": {{ metadata.region }}, "of": {{ headers.x-kind }}}'
        made = payload(text, b'{"total": 1e400, "name": "\\"O\\"", "more": [1]}')
        self.assertEqual(made, b'{"sum": 1e400, "to": "mr \\"O\\"", "in": "eu", "of": "a"}')
        self.assertEqual(payload("[{{ payload.0 }}, {{ payload.1.a }}]", b'[7, {"a": []}]'), b"[7, []]")

    def test_bytes(self) -> None:
        """A result that is not JSON goes on as it came, with its type; a template does not see it."""
        made = with_payload(request(result=None, body=b"\xff\x00", headers={"Content-Type": "image/png", "X": "y"}))
        self.assertEqual((made.submission.payload, made.submission.body), (b"null", b"\xff\x00"))
        self.assertEqual(made.submission.headers, {"X-Kind": "a", "Content-Type": "image/png"})
        made = with_payload(request('{"got": {{ payload }}}', None, body=b"\xff"))
        self.assertEqual((made.submission.payload, made.submission.body), (b'{"got": null}', None))

    def test_once(self) -> None:
        """What was made is a request like any other: a process that a handler runs in makes it no second time."""
        made = with_payload(request('{"a": {{ payload }}}'))
        self.assertEqual((made.submission.transform, made.submission.parent_reply), (None, None))
        self.assertIs(with_payload(made), made)

    def test_no_step(self) -> None:
        """A follow-up that is no step, and any other request, stays what it is."""
        for each in (request(None), Request("this", 1.0, Submission(b"1", transform=WHOLE))):
            self.assertIs(with_payload(each), each)

    def test_missing(self) -> None:
        """A result that lacks a field ends the step for good, and says which field."""
        error = self.assertRaises(Reject, with_payload, request('{"a": {{ payload.b }}}', b'{"a": 1}'))
        self.assertIn("payload.b", str(error))

    def test_bounded(self) -> None:
        """However often a template names a large result, what is filled in has a bound."""
        many = "[" + ",".join(["{{payload}}"] * 600) + "]"
        self.assertLess(len(many), MOST_TEMPLATE_CHARACTERS)
        error = self.assertRaises(Reject, with_payload, request(many, b'"%b"' % (b"a" * 1024 * 1024)))
        self.assertIn(str(MOST_COPIED_BYTES), str(error))


class TemplateTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """What is no template, or does not become JSON, is refused before anything is accepted."""
        for text in (
            "",
            "hello {{ payload }}",
            '{"a": "{{ payload }}"}',
            "{{ payload",
            "{{ payload }} {{",
            "{{ payload | upper }}",
            "{{ payload() }}",
            "{{ }}",
            "{{ correlation_id.x }}",
            "1" + " " * MOST_TEMPLATE_CHARACTERS,
        ):
            self.assertRaises(ValueError, step_template, text)

    def test_many_brackets(self) -> None:
        """Text that is made to be slow is refused at once."""
        began = time.process_time()
        for text in ("{" * MOST_TEMPLATE_CHARACTERS, "}}" + "{{" * (MOST_TEMPLATE_CHARACTERS // 2 - 1)):
            self.assertRaises(ValueError, step_template, text)
        self.assertLess(time.process_time() - began, 1.0)

    def test_redriven(self) -> None:
        """A step that is a dead letter has its template still, and not the time that was left when it began."""
        failed = request('{"a": {{ payload }}}')
        failed = replace(failed, submission=replace(failed.submission, timeout=0.5))
        again = redriven(DeadLetter(failed, "rejected", Reply("this", Status.FAILED, 6.0), 6.0))
        self.assertEqual(with_payload(Request("again", 9.0, again)).submission.payload, b'{"a": 1}')
        self.assertIsNone(again.timeout)
