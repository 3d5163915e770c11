# -*- test-case-name: tests.ingress.test_answers -*-
"""Problem documents, and the one table from an error to its status code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import msgspec

from openhqm.errors import (
    AlreadyEnded,
    DeadlineUnmet,
    ExpiredRequest,
    IdempotencyConflict,
    InvalidRequest,
    MalformedJSON,
    MessageTooLarge,
    NotDurable,
    NotPermitted,
    OpenHQMError,
    PayloadRefused,
    TooManyOpen,
    TooMuchQueued,
    UnknownRequest,
)
from openhqm.http1.messages import REASONS, Answer, Fields

PROBLEM = b"application/problem+json"
INTERNAL_ERROR = "this is an internal error; the log of the server has the details"


@attrs.frozen
class HTTPProblem(OpenHQMError):
    """An error of the HTTP request itself, with its status code. ``fields`` are header fields of the answer."""

    status: int
    detail: str
    fields: Fields = ()


NOT_STORED = (
    "this could not be stored safely now; repeat it after the time in Retry-After, "
    "and a submission under the same Idempotency-Key"
)
MAYBE_DONE = (
    "it is not known whether this was stored and will be done; repeat it after the time in Retry-After: "
    "a submission under the same Idempotency-Key is done once"
)
STATUS: tuple[tuple[type[OpenHQMError], int], ...] = (
    (MalformedJSON, 400),
    (UnknownRequest, 404),
    (AlreadyEnded, 409),
    (ExpiredRequest, 410),
    (MessageTooLarge, 413),
    (NotPermitted, 403),
    (InvalidRequest, 422),
    (IdempotencyConflict, 422),
    (TooMuchQueued, 429),
    (TooManyOpen, 429),
    (NotDurable, 503),
)


def problem(status: int, detail: str, *, instance: str | None = None, fields: Fields = (), **members: Any) -> Answer:
    """A problem document (RFC 9457, section 3)."""
    title = REASONS.get(status, b"Error").decode("ascii")
    document: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if instance is not None:
        document["instance"] = instance
    document.update(members)
    return Answer(status, msgspec.json.encode(document), PROBLEM, fields)


def problem_for(error: OpenHQMError, instance: str) -> Answer:
    """The problem document for ``error``; ``instance`` is the target of the request."""
    if isinstance(error, HTTPProblem):
        return problem(error.status, error.detail, instance=instance, fields=error.fields)
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
    members: dict[str, Any] = {}
    fields: Fields = ()
    detail = str(error)
    if isinstance(error, UnknownRequest | ExpiredRequest | AlreadyEnded):
        members["correlation_id"] = error.correlation_id
    if isinstance(error, AlreadyEnded):
        members["request_status"] = error.status
    if isinstance(error, TooManyOpen):
        fields = ((b"Retry-After", b"1"),)
    if isinstance(error, MessageTooLarge):
        members["largest_message"] = error.limit
    if isinstance(error, InvalidRequest):
        members["field"] = error.field
    if isinstance(error, PayloadRefused):
        members["errors"] = [{"pointer": each.pointer, "detail": each.detail} for each in error.faults]
    if isinstance(error, NotDurable):
        # The reason may name paths and hosts behind the gateway. It is in the log; the caller learns what to do.
        detail = MAYBE_DONE if error.maybe_done else NOT_STORED
        if isinstance(error, DeadlineUnmet):
            detail = (
                f"the first request in the queue has waited for {error.waited:.0f} s, and this one has "
                f"{error.timeout:g} s: it was not accepted; repeat it after the time in Retry-After, or with more time"
            )
        if isinstance(error, TooMuchQueued):
            detail = (
                f"{error.limit} requests of this tenant wait, and no more may: repeat it after the time in Retry-After"
            )
        fields = ((b"Retry-After", b"%d" % error.retry_after),)
    if status == 500:
        detail = INTERNAL_ERROR
    return problem(status, detail, instance=instance, fields=fields, **members)


def field(fields: Callable[[bytes], bytes | None], name: bytes) -> str | None:
    """The value of a header field as text, or None. `HTTPProblem` 400 where it is not ASCII."""
    value = fields(name)
    if value is None:
        return None
    try:
        return value.decode("ascii").strip()
    except UnicodeDecodeError:
        raise HTTPProblem(400, f"the header field {name.decode()} must be ASCII") from None
