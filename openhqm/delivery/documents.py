# -*- test-case-name: tests.delivery.test_documents -*-
"""The JSON documents for acceptances, records, replies and events."""

from __future__ import annotations

from typing import Any

import msgspec

from openhqm.messages import Acceptance, Event, Record, Reply
from openhqm.policy.field_text import readable
from openhqm.runtime.times import rfc3339

_encode = msgspec.json.Encoder().encode
_NULL = msgspec.Raw(b"null")
MOST_EVENT_RESULT_BYTES = 48 * 1024


def acceptance_document(acceptance: Acceptance, ahead: float = 0.0) -> bytes:
    """The body of the 202 to a submission. ``ahead``: see `openhqm.runtime.steady_time`, here and below."""
    return b'{"correlation_id":"%b","status":"PENDING","submitted_at":"%b"}' % (
        acceptance.correlation_id.encode(),
        rfc3339(acceptance.submitted_at + ahead).encode(),
    )


def status_document(record: Record, ahead: float = 0.0) -> bytes:
    """The current status of a request."""
    document: dict[str, Any] = {
        "correlation_id": record.correlation_id,
        "status": record.status.value,
        "submitted_at": rfc3339(record.submitted_at + ahead),
        "updated_at": rfc3339(record.updated_at + ahead),
        "attempt": record.attempt,
    }
    if record.next_attempt_at is not None:
        document["next_attempt_at"] = rfc3339(record.next_attempt_at + ahead)
    if record.reply is not None and record.reply.superseded_by is not None:
        document["superseded_by"] = record.reply.superseded_by
    if record.expires_at is not None:
        document["expires_at"] = rfc3339(record.expires_at + ahead)
    if record.children:
        document["steps"] = [
            {
                "correlation_id": child.correlation_id,
                "stage": child.stage,
                "name": child.name,
                "status": child.status.value,
            }
            for child in record.children
        ]
    return _encode(document)


def response_document(reply: Reply, expires_at: float | None = None, ahead: float = 0.0) -> bytes:
    """The reply to a request, with its result byte for byte. ``expires_at`` is when the reply is deleted."""
    document: dict[str, Any] = {
        "correlation_id": reply.correlation_id,
        "status": reply.status.value,
        "result": _result(reply),
        "status_code": reply.status_code,
        "headers": {name: readable(value) for name, value in reply.headers.items()},
        "error": reply.error,
        "attempt": reply.attempt,
        "processing_time_ms": reply.processing_time_ms,
        "completed_at": rfc3339(reply.completed_at + ahead),
    }
    if reply.reason_class is not None:
        document["reason_class"] = reply.reason_class
    if reply.superseded_by is not None:
        document["superseded_by"] = reply.superseded_by
    if expires_at is not None:
        document["expires_at"] = rfc3339(expires_at + ahead)
    return _encode(document)


def event_document(correlation_id: str, event: Event, ahead: float = 0.0) -> bytes:
    """The data of an event.

    A result beyond `MOST_EVENT_RESULT_BYTES`, which would block the stream, is left out: ``"truncated": true``.
    """
    if event.reply is not None:
        reply = event.reply
        if len(reply.result or reply.body or b"") <= MOST_EVENT_RESULT_BYTES:
            return response_document(reply, ahead=ahead)
        short = {
            "correlation_id": correlation_id,
            "status": reply.status.value,
            "truncated": True,
            "status_code": reply.status_code,
            "completed_at": rfc3339(reply.completed_at + ahead),
        }
        return _encode(short)
    detail = dict(event.detail)
    document: dict[str, Any] = {
        "correlation_id": correlation_id,
        "status": "PENDING" if event.number == 1 else "PROCESSING",
        "at": rfc3339(event.at + ahead),
    }
    if event.type == "retrying":
        detail["next_attempt_at"] = rfc3339(detail["next_attempt_at"] + ahead)
    # The gateway's own members replace those that a handler reported under the same names.
    return _encode({**detail, **document})


def _result(reply: Reply) -> Any:
    if reply.result is not None:
        return msgspec.Raw(reply.result)
    if reply.body is not None:
        try:
            return reply.body.decode("utf-8")
        except UnicodeDecodeError:
            return None  # bytes that are not UTF-8 are served by /body only
    return _NULL
