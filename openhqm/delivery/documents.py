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


def acceptance_document(acceptance: Acceptance) -> bytes:
    """The body of the 202 to a submission."""
    return b'{"correlation_id":"%b","status":"PENDING","submitted_at":"%b"}' % (
        acceptance.correlation_id.encode(),
        rfc3339(acceptance.submitted_at).encode(),
    )


def status_document(record: Record) -> bytes:
    """The current status of a request."""
    document: dict[str, Any] = {
        "correlation_id": record.correlation_id,
        "status": record.status.value,
        "submitted_at": rfc3339(record.submitted_at),
        "updated_at": rfc3339(record.updated_at),
        "attempt": record.attempt,
    }
    if record.next_attempt_at is not None:
        document["next_attempt_at"] = rfc3339(record.next_attempt_at)
    if record.expires_at is not None:
        document["expires_at"] = rfc3339(record.expires_at)
    return _encode(document)


def response_document(reply: Reply, expires_at: float | None = None) -> bytes:
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
        "completed_at": rfc3339(reply.completed_at),
    }
    if reply.reason_class is not None:
        document["reason_class"] = reply.reason_class
    if expires_at is not None:
        document["expires_at"] = rfc3339(expires_at)
    return _encode(document)


def event_document(correlation_id: str, event: Event) -> bytes:
    """The data of an event.

    A result beyond `MOST_EVENT_RESULT_BYTES`, which would block the stream, is left out: ``"truncated": true``.
    """
    if event.reply is not None:
        reply = event.reply
        if len(reply.result or reply.body or b"") <= MOST_EVENT_RESULT_BYTES:
            return response_document(reply)
        short = {
            "correlation_id": correlation_id,
            "status": reply.status.value,
            "truncated": True,
            "status_code": reply.status_code,
            "completed_at": rfc3339(reply.completed_at),
        }
        return _encode(short)
    detail = dict(event.detail)
    document: dict[str, Any] = {
        "correlation_id": correlation_id,
        "status": "PENDING" if event.number == 1 else "PROCESSING",
        "at": rfc3339(event.at),
    }
    if event.type == "retrying":
        detail["next_attempt_at"] = rfc3339(detail["next_attempt_at"])
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
