# -*- test-case-name: tests.test_codec -*-
"""The wire format of messages in queues and stores: JSON, version 1, described in docs/wire-format.md.

The payload and the result are in it byte for byte, and the white space around them stands beside them. A reader
refuses an unknown version, and ignores unknown members, because a newer writer may add some.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

from openhqm.errors import UnreadableMessage
from openhqm.messages import Child, DeadLetter, Priority, Reply, Request, Status, Submission
from openhqm.policy.steps import Step

VERSION = 1
_LONGEST_ID = "00000000-0000-4000-8000-000000000000"
_SPACE = b" \t\r\n"  # RFC 8259, section 2
_LONGEST_TIME = 1234567890.1234567  # no time of this century takes more digits


class _ReplyV1(msgspec.Struct, omit_defaults=True):
    openhqm: int
    correlation_id: str
    status: str
    completed_at: float
    result: msgspec.Raw = msgspec.Raw(b"null")
    body: str | None = None
    status_code: int = 200
    headers: dict[str, str] = {}
    error: str | None = None
    attempt: int = 0
    processing_time_ms: int = 0
    reason_class: str | None = None
    space: tuple[str, str] | None = None
    superseded_by: str | None = None


class _RequestV1(msgspec.Struct, omit_defaults=True, kw_only=True):
    openhqm: int
    correlation_id: str
    submitted_at: float
    tenant: str | None = None  # before all that may be long: see `tenant_of`
    payload: msgspec.Raw
    headers: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    priority: str = "normal"
    timeout: float | None = None
    not_before: float | None = None
    body: str | None = None
    endpoint: str | None = None
    partition: int | None = None
    reply_to: str | None = None
    tags: tuple[str, ...] = ()
    parent_reply: _ReplyV1 | None = None
    space: tuple[str, str] | None = None
    keeps_result: bool = True
    transform: str | None = None
    share: str | None = None


class _PlainV1(msgspec.Struct, omit_defaults=True):
    """Those members of `_RequestV1` that most requests have: their envelopes take a quarter of the time to make so."""

    openhqm: int
    correlation_id: str
    submitted_at: float
    tenant: str | msgspec.UnsetType
    payload: msgspec.Raw
    headers: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    endpoint: str | None = None
    partition: int | None = None
    reply_to: str | None = None
    keeps_result: bool = True
    share: str | None = None


class _DeadLetterV1(msgspec.Struct, omit_defaults=True):
    openhqm: int
    reason: str
    at: float
    request: _RequestV1
    reply: _ReplyV1
    first_attempt_at: float | None = None
    last_attempt_at: float | None = None


class _StepV1(msgspec.Struct, omit_defaults=True):
    openhqm: int
    correlation_id: str
    name: str
    type: str
    at: float
    generation: int = 0
    attempt: int = 0
    detail: dict[str, Any] = {}
    delay: float = 0.0
    reason: str | None = None
    reply: _ReplyV1 | None = None
    letter: _DeadLetterV1 | None = None


_PRIORITIES = {each.value: each for each in Priority}  # what Priority(value) finds, in a tenth of the time
_encoder = msgspec.json.Encoder()
HEAD_BYTES = 256
"""So many first bytes of an envelope are enough for `tenant_of`."""
_TENANT = re.compile(rb'\{"openhqm":\d+,"correlation_id":"[^"]*","submitted_at":[^,]+,"tenant":"([a-z0-9-]+)"')
_NO_ADDRESS = len(b'{"openhqm":%d,"correlation_id":"","submitted_at":0.0' % VERSION)
_request_decoder = msgspec.json.Decoder(_RequestV1)
_reply_decoder = msgspec.json.Decoder(_ReplyV1)
_dead_letter_decoder = msgspec.json.Decoder(_DeadLetterV1)
_step_decoder = msgspec.json.Decoder(_StepV1)


def encode_request(request: Request) -> bytes:
    """A request as bytes, for `decode_request`."""
    submission = request.submission
    payload = submission.payload
    if (
        submission.priority is Priority.NORMAL
        and submission.timeout is None
        and submission.not_before is None
        and submission.body is None
        and not submission.tags
        and submission.parent_reply is None
        and submission.transform is None
        and payload[:1] > b" "
        and payload[-1:] > b" "
    ):
        headers, metadata = submission.headers, submission.metadata
        plain = _PlainV1(
            VERSION,
            request.correlation_id,
            request.submitted_at,
            msgspec.UNSET if submission.tenant is None else submission.tenant,
            msgspec.Raw(payload),
            headers if type(headers) is dict else dict(headers),
            metadata if type(metadata) is dict else dict(metadata),
            submission.endpoint,
            submission.partition,
            submission.reply_to,
            submission.keeps_result,
            submission.share,
        )
        return _encoder.encode(plain)
    return _encoder.encode(_request_to_wire(request))


def tenant_of(head: bytes) -> str | None:
    """The tenant of a request, from the first `HEAD_BYTES` bytes of `encode_request`; None: it has none."""
    found = _TENANT.match(head)
    return None if found is None else found[1].decode()


def encode_submission(submission: Submission) -> bytes:
    """A request that has no id yet, for `address`."""
    return encode_request(Request("", 0.0, submission))


def address(envelope: bytes, correlation_id: str, submitted_at: float) -> bytes:
    """The envelope of `encode_submission` with an id and a time, without encoding it again."""
    head = b'{"openhqm":%d,"correlation_id":"%b","submitted_at":%b'
    return head % (VERSION, correlation_id.encode(), repr(submitted_at).encode()) + envelope[_NO_ADDRESS:]


def request_size(submission: Submission) -> int:
    """How many bytes `encode_request` makes of a submission once it is accepted; a few more where its time is short."""
    return len(encode_request(Request(_LONGEST_ID, _LONGEST_TIME, submission)))


def size_with(submission: Submission, children: Sequence[Child]) -> int:
    """`request_size` of a request and of the steps that it consists of."""
    return sum((request_size(child.submission) for child in children), request_size(submission))


def decode_request(data: bytes) -> Request:
    """The request in ``data``. Raises `UnreadableMessage`."""
    return _request_from_wire(_decode(_request_decoder, data))


def encode_reply(reply: Reply) -> bytes:
    """A reply as bytes, for `decode_reply`."""
    return _encoder.encode(_reply_to_wire(reply))


def decode_reply(data: bytes) -> Reply:
    """The reply in ``data``. Raises `UnreadableMessage`."""
    return _reply_from_wire(_decode(_reply_decoder, data))


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """A dead letter as bytes, for `decode_dead_letter`."""
    return _encoder.encode(_letter_to_wire(letter))


def decode_dead_letter(data: bytes) -> DeadLetter:
    """The dead letter in ``data``. Raises `UnreadableMessage`."""
    return _letter_from_wire(_decode(_dead_letter_decoder, data))


def encode_step(step: Step) -> bytes:
    """A step as bytes, for `decode_step`."""
    return _encoder.encode(
        _StepV1(
            VERSION,
            step.correlation_id,
            step.name,
            step.type,
            step.at,
            step.generation,
            step.attempt,
            dict(step.detail),
            step.delay,
            step.reason,
            None if step.reply is None else _reply_to_wire(step.reply),
            None if step.letter is None else _letter_to_wire(step.letter),
        )
    )


def decode_step(data: bytes) -> Step:
    """The step in ``data``. Raises `UnreadableMessage`."""
    wire: _StepV1 = _decode(_step_decoder, data)
    reply = None if wire.reply is None else _reply_from_wire(wire.reply)
    letter = None if wire.letter is None else _letter_from_wire(wire.letter)
    try:
        return Step(
            wire.correlation_id,
            wire.name,
            wire.type,
            wire.at,
            wire.generation,
            wire.attempt,
            wire.detail,
            wire.delay,
            wire.reason,
            reply,
            letter,
        )
    except ValueError as error:
        raise UnreadableMessage(str(error)) from None


def _decode(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    try:
        wire = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableMessage(f"the message is not an OpenHQM envelope: {error}") from None
    if wire.openhqm != VERSION:
        raise UnreadableMessage(
            f"the envelope has version {wire.openhqm}, and this version of OpenHQM knows {VERSION} only"
        )
    return wire


def _letter_to_wire(letter: DeadLetter) -> _DeadLetterV1:
    request, reply = _request_to_wire(letter.request), _reply_to_wire(letter.reply)
    times = letter.first_attempt_at, letter.last_attempt_at
    return _DeadLetterV1(VERSION, letter.reason, letter.at, request, reply, *times)


def _letter_from_wire(wire: _DeadLetterV1) -> DeadLetter:
    request, reply = _request_from_wire(wire.request), _reply_from_wire(wire.reply)
    return DeadLetter(request, wire.reason, reply, wire.at, wire.first_attempt_at, wire.last_attempt_at)


def _request_to_wire(request: Request) -> _RequestV1:
    submission = request.submission
    space = _space_around(submission.payload)
    return _RequestV1(
        openhqm=VERSION,
        correlation_id=request.correlation_id,
        submitted_at=request.submitted_at,
        tenant=submission.tenant,
        payload=msgspec.Raw(submission.payload if space is None else submission.payload.strip(_SPACE)),
        headers=dict(submission.headers),
        metadata=dict(submission.metadata),
        priority=submission.priority.value,
        timeout=submission.timeout,
        not_before=submission.not_before,
        body=_to_base64(submission.body),
        endpoint=submission.endpoint,
        partition=submission.partition,
        reply_to=submission.reply_to,
        tags=submission.tags,
        parent_reply=None if submission.parent_reply is None else _reply_to_wire(submission.parent_reply),
        space=space,
        keeps_result=submission.keeps_result,
        transform=submission.transform,
        share=submission.share,
    )


def _request_from_wire(wire: _RequestV1) -> Request:
    try:
        priority = _PRIORITIES[wire.priority]
    except KeyError:
        raise UnreadableMessage(f"the priority {wire.priority!r} is unknown") from None
    try:
        body = _from_base64(wire.body)
    except ValueError as error:
        raise UnreadableMessage(f"the body is not base64: {error}") from None
    submission = Submission(
        _with_space(bytes(wire.payload), wire.space),
        wire.headers,
        wire.metadata,
        priority,
        wire.timeout,
        wire.not_before,
        body,
        wire.endpoint,
        wire.partition,
        wire.reply_to,
        wire.tenant,
        wire.tags,
        None if wire.parent_reply is None else _reply_from_wire(wire.parent_reply),
        wire.keeps_result,
        wire.transform,
        wire.share,
    )
    return Request(wire.correlation_id, wire.submitted_at, submission)


def _reply_to_wire(reply: Reply) -> _ReplyV1:
    return _ReplyV1(
        openhqm=VERSION,
        correlation_id=reply.correlation_id,
        status=reply.status.value,
        completed_at=reply.completed_at,
        result=msgspec.Raw(reply.result.strip(_SPACE) if reply.result is not None else b"null"),
        body=_to_base64(reply.body),
        status_code=reply.status_code,
        headers=dict(reply.headers),
        error=reply.error,
        attempt=reply.attempt,
        processing_time_ms=reply.processing_time_ms,
        reason_class=reply.reason_class,
        space=None if reply.result is None else _space_around(reply.result),
        superseded_by=reply.superseded_by,
    )


def _reply_from_wire(wire: _ReplyV1) -> Reply:
    result = bytes(wire.result)
    try:
        status = Status(wire.status)
        body = _from_base64(wire.body)
        return Reply(
            wire.correlation_id,
            status,
            wire.completed_at,
            None if result == b"null" else _with_space(result, wire.space),
            body,
            wire.status_code,
            wire.headers,
            wire.error,
            wire.attempt,
            wire.processing_time_ms,
            wire.reason_class,
            wire.superseded_by,
        )
    except ValueError as error:
        raise UnreadableMessage(str(error)) from None


def _space_around(text: bytes) -> tuple[str, str] | None:
    """The white space before and after a JSON value, which JSON does not keep; None where there is none."""
    # All white space is below. To ask whether it is in `_SPACE` costs an exception within the interpreter.
    if text[:1] > b" " and text[-1:] > b" ":
        return None
    before = len(text) - len(text.lstrip(_SPACE))
    after = len(text.rstrip(_SPACE))
    return text[:before].decode(), text[after:].decode()


def _with_space(text: bytes, space: tuple[str, str] | None) -> bytes:
    return text if space is None else b"%b%b%b" % (space[0].encode(), text, space[1].encode())


def _to_base64(body: bytes | None) -> str | None:
    return None if body is None else b64encode(body).decode("ascii")


def _from_base64(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text, validate=True)
