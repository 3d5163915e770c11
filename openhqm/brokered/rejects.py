# -*- test-case-name: tests.brokered -*-
"""Messages in a channel of requests that are no requests of this store: dead letters, with all their bytes."""

from __future__ import annotations

from hashlib import blake2b
from uuid import UUID

from openhqm.messages import DeadLetter, Reply, Request, Status, Submission
from openhqm.policy.reason_classes import ReasonClass

REFUSED_STATUS = 422


def unreadable(body: bytes, reason: str, now: float) -> DeadLetter:
    """For bytes that are no envelope. Their id follows from them: the same bytes have the same id."""
    id = str(UUID(bytes=blake2b(body, digest_size=16).digest(), version=4))
    request = Request(id, now, Submission(b"null", body=body))
    return _letter(request, f"not a request: {reason}", ReasonClass.NOT_A_REQUEST, now)


def foreign(request: Request, now: float) -> DeadLetter:
    """For a request that has no record: another store has given out its id."""
    return _letter(request, "its id was not given out by this store", ReasonClass.FOREIGN, now)


def _letter(request: Request, reason: str, kind: ReasonClass, now: float) -> DeadLetter:
    reply = Reply(
        request.correlation_id,
        Status.FAILED,
        now,
        status_code=REFUSED_STATUS,
        error=reason,
        reason_class=kind.value,
    )
    return DeadLetter(request, reason, reply, now)
