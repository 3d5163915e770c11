"""The wire format: what is encoded is decoded again, and anything else is refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.codec import (
    decode_dead_letter,
    decode_reply,
    decode_request,
    decode_step,
    encode_dead_letter,
    encode_reply,
    encode_request,
    encode_step,
)
from openhqm.errors import UnreadableMessage
from openhqm.messages import DeadLetter, Priority, Reply, Request, Status, Submission
from openhqm.policy.steps import ENDED, PROCESSING, PROGRESS, REJECTED, RELEASED, RETRYING, Step
from tests import hypothesis_profile  # noqa: F401

TIMES = st.floats(0, 2**40)
HEADERS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e300, 1e300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
# JSON text as callers write it: numbers beyond 64 bits, with and without escapes, inner white space
TEXTS = st.sampled_from(
    [b"1" * 400, b"-0.0e+17", b'{"b": 1 ,\n "a":[ ]}', b'"\\u00e9\\/"', b"[1.10]", b"false", b"1\n", b'\t \r\n"a" ']
) | st.builds(lambda value, plain: json.dumps(value, ensure_ascii=plain).encode(), VALUES, st.booleans())
SUBMISSIONS = st.builds(
    Submission,
    payload=TEXTS,
    headers=HEADERS,
    metadata=st.dictionaries(st.text(max_size=8), VALUES, max_size=3),
    priority=st.sampled_from(Priority),
    timeout=st.none() | TIMES,
    not_before=st.none() | TIMES,
    body=st.none() | st.binary(max_size=20),
    endpoint=st.none() | st.text(max_size=8),
    partition=st.none() | st.integers(0, 1000),
    reply_to=st.none() | st.text(max_size=8),
    keeps_result=st.booleans(),
    transform=st.none() | st.text(max_size=8),
    tenant=st.none() | st.text(max_size=8),
    tags=st.lists(st.text(max_size=8), max_size=3).map(tuple),
    parent_reply=st.none() | st.deferred(lambda: REPLIES),
)
REQUESTS = st.builds(Request, st.text(max_size=40), TIMES, SUBMISSIONS)
REPLIES = st.builds(
    Reply,
    correlation_id=st.text(max_size=40),
    status=st.sampled_from([status for status in Status if status.ended]),
    completed_at=TIMES,
    result=st.none() | TEXTS.filter(lambda text: text != b"null"),
    body=st.none() | st.binary(max_size=20),
    status_code=st.integers(200, 599),
    headers=HEADERS,
    error=st.none() | st.text(max_size=20),
    attempt=st.integers(0, 2**31),
    processing_time_ms=st.integers(0, 2**53),
    reason_class=st.none() | st.text(max_size=8),
)
DEAD_LETTERS = st.builds(DeadLetter, REQUESTS, st.text(max_size=20), REPLIES, TIMES)
STEPS = st.builds(
    Step,
    correlation_id=st.text(max_size=40),
    name=st.text(max_size=20),
    type=st.sampled_from([PROCESSING, PROGRESS, RETRYING, RELEASED]),
    at=TIMES,
    generation=st.integers(0, 2**31),
    attempt=st.integers(0, 2**31),
    detail=st.dictionaries(st.text(max_size=8), VALUES, max_size=3),
    delay=TIMES,
    reason=st.none() | st.text(max_size=20),
)

REQUEST = Request("7f9c", 1.5, Submission(b'{"a":1}', {"X-A": "b"}, {"tags": ["c"]}, Priority.HIGH, 5.0, 2.5))
REPLY = Reply("7f9c", Status.FAILED, 3.5, b"[2]", b"\0\xff", 502, {"X-B": "c"}, "broken", 4, 17)
LETTER = DeadLetter(REQUEST, "4 attempts failed", REPLY, 4.5)
STEP = Step("7f9c", "a ended", ENDED, 3.5, 2, 4, reason="4 attempts failed", reply=REPLY)
KINDS: tuple[tuple[Callable[[bytes], Any], bytes, Any], ...] = (
    (decode_request, encode_request(REQUEST), REQUEST),
    (decode_reply, encode_reply(REPLY), REPLY),
    (decode_dead_letter, encode_dead_letter(LETTER), LETTER),
    (decode_step, encode_step(STEP), STEP),
)


class RoundTripTests(SynchronousTestCase):
    """`encode_*` and `decode_*`"""

    @given(REQUESTS)
    def test_requests(self, request: Request) -> None:
        """Any request is decoded as it was, its payload byte for byte."""
        self.assertEqual(decode_request(encode_request(request)), request)

    @given(REPLIES)
    def test_replies(self, reply: Reply) -> None:
        """Any reply is decoded as it was, its result and its body byte for byte."""
        self.assertEqual(decode_reply(encode_reply(reply)), reply)

    @given(DEAD_LETTERS)
    def test_dead_letters(self, letter: DeadLetter) -> None:
        """Any dead letter is decoded as it was: the request, the reason and the reply."""
        self.assertEqual(decode_dead_letter(encode_dead_letter(letter)), letter)

    @given(STEPS, REPLIES, DEAD_LETTERS)
    def test_steps(self, step: Step, reply: Reply, letter: DeadLetter) -> None:
        """Any step is decoded as it was: one of an attempt, an ending with its reply, and a rejected message."""
        for each in (
            step,
            Step(reply.correlation_id, "a", ENDED, 1.0, reply=reply),
            Step("a", "b", REJECTED, 1.0, letter=letter),
        ):
            self.assertEqual(decode_step(encode_step(each)), each)

    @given(REQUESTS)
    @example(Request("a", 1.0, Submission(b'\t \r\n"a" ')))
    def test_readable_by_others(self, request: Request) -> None:
        """The envelope is JSON with its version, and has the payload byte for byte."""
        data = encode_request(request)
        document = json.loads(data)
        self.assertEqual((document["openhqm"], document["correlation_id"]), (1, request.correlation_id))
        self.assertIn(b'"payload":' + request.submission.payload.strip(b" \t\r\n"), data)

    def test_plain(self) -> None:
        """The envelope of a plain request has its members in the order of docs/wire-format.md, and no others."""
        request = Request("an-id", 1.5, Submission(b'{ "a":1 }', {"X-A": "b"}, {"priority": "normal"}))
        expected = (
            b'{"openhqm":1,"correlation_id":"an-id","submitted_at":1.5,"payload":{ "a":1 },'
            b'"headers":{"X-A":"b"},"metadata":{"priority":"normal"}}'
        )
        self.assertEqual(encode_request(request), expected)
        self.assertEqual(decode_request(expected), request)
        elsewhere = Request("an-id", 1.5, Submission(b"1", endpoint="billing", partition=0, reply_to="there"))
        expected = (
            b'{"openhqm":1,"correlation_id":"an-id","submitted_at":1.5,"payload":1,'
            b'"endpoint":"billing","partition":0,"reply_to":"there"}'
        )
        self.assertEqual(encode_request(elsewhere), expected)
        self.assertEqual(decode_request(expected), elsewhere)


class UnreadableTests(SynchronousTestCase):
    """Messages that cannot be decoded are `UnreadableMessage`, with a reason"""

    def changed(self, data: bytes, **changes: Any) -> bytes:
        return json.dumps({**json.loads(data), **changes}, separators=(",", ":")).encode()

    def test_unknown_members(self) -> None:
        """Unknown members are ignored."""
        for decode, data, value in KINDS:
            self.assertEqual(decode(self.changed(data, later={"a": [1]}, other=None)), value)

    def test_defaults(self) -> None:
        """Members that a writer left out have their defaults: status 200, normal priority, no deadline."""
        reply = decode_reply(b'{"openhqm":1,"correlation_id":"a","status":"COMPLETED","completed_at":2.0}')
        self.assertEqual((reply.status_code, reply.attempt, reply.processing_time_ms), (200, 0, 0))
        self.assertEqual((reply.result, reply.body, reply.error, reply.headers), (None, None, None, {}))
        request = decode_request(b'{"openhqm":1,"correlation_id":"a","submitted_at":2.0,"payload":3}')
        self.assertEqual(request, Request("a", 2.0, Submission(b"3", {}, {}, Priority.NORMAL, None, None)))

    def test_other_versions(self) -> None:
        """An unknown version is refused, and named."""
        for decode, data, _ in KINDS:
            for version in (0, 2, 99):
                error = self.assertRaises(UnreadableMessage, decode, self.changed(data, openhqm=version))
                self.assertIn(str(version), str(error))
            for version in (None, "1", [1]):
                self.assertRaises(UnreadableMessage, decode, self.changed(data, openhqm=version))

    def test_missing_members(self) -> None:
        """An envelope without its version, id or payload is refused."""
        for decode, data, _ in KINDS:
            for name in {"openhqm", "correlation_id", "payload", "status", "request", "reply"} & set(json.loads(data)):
                document = json.loads(data)
                del document[name]
                self.assertRaises(UnreadableMessage, decode, json.dumps(document).encode())

    def test_unknown_values(self) -> None:
        """An unknown priority or status is refused, and named; so is a reply without an ending."""
        for decode, data, change in (
            (decode_request, KINDS[0][1], {"priority": "urgent"}),
            (decode_reply, KINDS[1][1], {"status": "LOST"}),
            (decode_reply, KINDS[1][1], {"status": "PENDING"}),
            (decode_step, KINDS[3][1], {"type": "magic"}),
        ):
            error = self.assertRaises(UnreadableMessage, decode, self.changed(data, **change))
            self.assertIn(next(iter(change.values())), str(error))
        self.assertRaises(UnreadableMessage, decode_reply, self.changed(KINDS[1][1], body="not base64!"))
        inner = {**json.loads(KINDS[0][1]), "priority": "urgent"}
        self.assertRaises(UnreadableMessage, decode_dead_letter, self.changed(KINDS[2][1], request=inner))

    def test_truncated(self) -> None:
        """An envelope that was cut anywhere is refused."""
        for decode, data, _ in KINDS:
            for end in range(len(data)):
                self.assertRaises(UnreadableMessage, decode, data[:end])

    @given(st.binary(max_size=60) | st.text('[]{}":,openhqm1 ', max_size=60).map(str.encode))
    @example(b"[" * 200_000)
    @example(b'{"openhqm":1,"payload":' + b"[" * 200_000)
    @example(b'{"openhqm":1,"correlation_id":"\xff"}')
    @example(b'{"openhqm":1,"correlation_id":"\\ud800","submitted_at":0,"payload":0}')
    def test_garbage(self, data: bytes) -> None:
        """Any bytes of another program are `UnreadableMessage`, and raise nothing else."""
        for decode, _, _ in KINDS:
            self.assertRaises(UnreadableMessage, decode, data)
