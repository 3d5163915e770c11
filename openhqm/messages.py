# -*- test-case-name: tests.test_messages -*-
"""What travels: submissions, requests, events and replies. Frozen, and valid from birth.

Times are seconds since the epoch, as floats. A payload and a result are JSON *text* (bytes), carried
as they came: big numbers, key order and white space survive, and nobody pays for parsing them on the way.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs


class Status(enum.Enum):
    """Where a request stands. PENDING -> PROCESSING -> exactly one of the four endings."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"

    __hash__ = object.__hash__  # there is one of each; Enum's own is Python

    @property
    def ended(self) -> bool:
        """Whether this is an ending."""
        return self not in (Status.PENDING, Status.PROCESSING)


class Priority(enum.Enum):
    """Which of the waiting requests goes first. Within one priority, the oldest does."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    __hash__ = object.__hash__


def _no_headers() -> dict[str, str]:
    return {}


@attrs.frozen
class Submission:
    """What a caller asked for, read and checked, before it has an id.

    ``metadata`` is the caller's whole metadata, known keys and their own; the fields beside it are what
    the gateway itself acts upon. ``timeout`` is the whole request's deadline in seconds from acceptance
    (None: no deadline of its own). ``not_before`` is a time, or None for at once. ``body`` holds content that is not
    JSON, and the payload is ``null`` then. ``endpoint`` and ``partition`` say in which queue it waits
    (`policy.queue_names`): None for the one that everything without an endpoint or a partition shares. ``reply_to``
    names a stream of the broker that the reply is put into, too; only a message of that broker can ask for it.
    """

    payload: bytes
    headers: Mapping[str, str] = attrs.field(factory=_no_headers)
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    priority: Priority = Priority.NORMAL
    timeout: float | None = None
    not_before: float | None = None
    body: bytes | None = None
    endpoint: str | None = None
    partition: int | None = None
    reply_to: str | None = None


@attrs.frozen
class Request:
    """A submission that was accepted: it has an id, and it will end exactly once."""

    correlation_id: str
    submitted_at: float
    submission: Submission

    @property
    def deadline(self) -> float | None:
        """When the request ends with TIMEOUT if it has not ended before."""
        timeout = self.submission.timeout
        return None if timeout is None else self.submitted_at + timeout


@attrs.frozen
class IdempotencyClaim:
    """The caller's word that repeats under ``key`` are the same request.

    ``fingerprint`` is a digest of what was asked; ``lifetime`` is in seconds; keys of different ``scope`` have nothing
    to do with each other.
    """

    key: str
    fingerprint: bytes
    lifetime: float = 24 * 3600.0
    scope: str = ""


@attrs.frozen
class Acceptance:
    """The answer to a submission that is safe: its id, when it was taken, and whether it was a repeat."""

    correlation_id: str
    submitted_at: float
    replayed: bool = False


@attrs.frozen
class Reply:
    """How a request ended.

    ``result`` is JSON text, or None; ``body`` holds the bytes of a reply that is not JSON.
    ``status_code`` and ``headers`` are what the raw body is served with.
    """

    correlation_id: str
    status: Status = attrs.field()
    completed_at: float
    result: bytes | None = None
    body: bytes | None = None
    status_code: int = 200
    headers: Mapping[str, str] = attrs.field(factory=_no_headers)
    error: str | None = None
    attempt: int = 0
    processing_time_ms: int = 0

    @status.validator
    def _is_an_ending(self, attribute: object, value: Status) -> None:
        if not value.ended:
            raise ValueError(f"a reply needs an ending, not {value.value}")


@attrs.frozen
class DeadLetter:
    """A request that could not be done: why, and the last answer it had."""

    request: Request
    reason: str
    reply: Reply
    at: float


@attrs.frozen
class Event:
    """One step in the life of a request. ``number`` counts from 1 without gaps, per request.

    ``type`` is pending, processing, progress, retrying, or the ending in lower case. An ending carries
    its reply.
    """

    number: int
    type: str
    at: float
    detail: Mapping[str, Any] = attrs.field(factory=dict)
    reply: Reply | None = None


@attrs.frozen
class Record:
    """All that is known of one request now."""

    correlation_id: str
    status: Status
    submitted_at: float
    updated_at: float
    attempt: int = 0
    next_attempt_at: float | None = None
    reply: Reply | None = None
    expires_at: float | None = None


@attrs.frozen
class Depth:
    """How much lies in a queue: ready to be received, held back for later, and on loan.

    ``oldest`` is when the oldest ready message was published, or None.
    """

    ready: int
    delayed: int
    in_flight: int
    oldest: float | None = None
