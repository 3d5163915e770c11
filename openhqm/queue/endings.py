# -*- test-case-name: tests.queue.test_contracts -*-
"""The endings that a result store makes itself, alike in every store."""

from __future__ import annotations

from openhqm.messages import Reply, Status

OVERFLOW = "overflow"
EXPIRED = "expired"
SUPERSEDED = "superseded"


def past_deadline(correlation_id: str, now: float, attempt: int) -> Reply:
    """The ending of a request whose deadline passed."""
    when = f"during attempt {attempt}" if attempt else "before the first attempt"
    return Reply(
        correlation_id, Status.TIMEOUT, now, error=f"the deadline passed {when}", status_code=504, attempt=attempt
    )


def dropped(correlation_id: str, now: float) -> Reply:
    """The ending of a request that waited longest where the queue was full, and newer ones came."""
    return Reply(
        correlation_id,
        Status.FAILED,
        now,
        error="the queue was full, and this request had waited longest",
        status_code=503,
        reason_class=OVERFLOW,
    )


def expired(correlation_id: str, now: float, seconds: float) -> Reply:
    """The ending of a request that waited for its first attempt for longer than ``seconds``."""
    return Reply(
        correlation_id,
        Status.FAILED,
        now,
        error=f"it waited for its first attempt for more than {seconds:g} s",
        status_code=503,
        reason_class=EXPIRED,
    )


def cancelled(correlation_id: str, now: float, attempt: int) -> Reply:
    """The ending of a request that its caller cancelled."""
    return Reply(
        correlation_id, Status.CANCELLED, now, error="cancelled by the caller", status_code=409, attempt=attempt
    )


def superseded(correlation_id: str, now: float, by: str) -> Reply:
    """The ending of a request whose place a newer one has taken before it began."""
    return Reply(
        correlation_id,
        Status.CANCELLED,
        now,
        error=f"a newer request with the same coalesce key has taken its place: {by}",
        status_code=409,
        reason_class=SUPERSEDED,
        superseded_by=by,
    )
