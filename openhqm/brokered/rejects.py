# -*- test-case-name: tests.brokered -*-
"""Messages in a channel of requests that are no requests of this store: dead letters, with all their bytes."""

from __future__ import annotations

from hashlib import blake2b
from uuid import UUID

from openhqm.messages import DeadLetter, Reply, Request, Status, Submission

REFUSED_STATUS = 422


def unreadable(body: bytes, reason: str, now: float) -> DeadLetter:
    """For bytes that are no envelope. Their id follows from them: the same bytes have the same id."""
    id = str(UUID(bytes=blake2b(body, digest_size=16).digest(), version=4))
    return _letter(Request(id, now, Submission(b"null", body=body)), f"not a request: {reason}", now)


def foreign(request: Request, now: float) -> DeadLetter:
    """For a request that has no record: another store has given out its id."""
    return _letter(request, "its id was not given out by this store", now)


def _letter(request: Request, reason: str, now: float) -> DeadLetter:
    reply = Reply(request.correlation_id, Status.FAILED, now, status_code=REFUSED_STATUS, error=reason)
    return DeadLetter(request, reason, reply, now)
