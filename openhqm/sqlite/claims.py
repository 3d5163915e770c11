# -*- test-case-name: tests.queue.test_contracts -*-
"""Idempotency keys in the embedded file. Everything here runs inside an operation of `SqliteFile.write`."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import apsw

from openhqm.errors import IdempotencyConflict
from openhqm.messages import Acceptance, IdempotencyClaim
from openhqm.policy.ids import CorrelationIds
from openhqm.queue.limits import no_repeat
from openhqm.sqlite.sql import fetch_one
from openhqm.sqlite.waiting import Refused


def take_claim(
    connection: apsw.Connection, ids: CorrelationIds, claim: IdempotencyClaim, key: int, now: float
) -> Acceptance | Refused | None:
    """Take the idempotency key for ``key``; the acceptance of the request that has it, if there is one.

    `IdempotencyConflict` where that is another request, `QueueFull` where there is none, and the claim is for repeats
    only: both as `Refused`.
    """
    digest = _digest(claim)
    known = fetch_one(
        connection, "SELECT fingerprint, key, at FROM claims WHERE digest = ? AND expires > ?", (digest, now)
    )
    if known is None:
        if claim.repeats_only:
            return Refused(no_repeat())
        connection.execute(
            "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?)",
            (digest, claim.fingerprint, key, now, now + claim.lifetime),
        )
        return None
    fingerprint, first, at = known
    if fingerprint != claim.fingerprint:
        return Refused(IdempotencyConflict(claim.key))
    return Acceptance(ids.issue(first), at, replayed=True)


def drop_claim(connection: apsw.Connection, claim: IdempotencyClaim, key: int) -> None:
    """The idempotency key is free again, if it was for ``key``."""
    connection.execute("DELETE FROM claims WHERE digest = ? AND key = ?", (_digest(claim), key))


def let_expire(connection: apsw.Connection, claims: Sequence[IdempotencyClaim], now: float) -> None:
    """See `IResultStore.let_expire`."""
    connection.executemany(
        "UPDATE claims SET expires = ? WHERE digest = ? AND fingerprint = ?",
        [(now + claim.lifetime, _digest(claim), claim.fingerprint) for claim in claims],
    )


def _digest(claim: IdempotencyClaim) -> bytes:
    return blake2b(f"{claim.scope} {claim.key}".encode(), digest_size=16).digest()
