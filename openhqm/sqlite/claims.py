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

ClaimRow = tuple[IdempotencyClaim, tuple[bytes, bytes, int, float, float]]
"""A claim, and its row in the table."""
_TAKE = (
    "INSERT INTO claims VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET fingerprint = excluded.fingerprint,"
    " key = excluded.key, at = excluded.at, expires = excluded.expires WHERE expires <= excluded.at"
)
_HOLDER = "SELECT fingerprint, key, at FROM claims WHERE digest = ?"


def row_of(claim: IdempotencyClaim, key: int, now: float) -> ClaimRow:
    """With it, `take_claims` takes the idempotency key for the request ``key``."""
    return claim, (_digest(claim), claim.fingerprint, key, now, now + claim.lifetime)


def take_claims(
    connection: apsw.Connection, ids: CorrelationIds, claims: Sequence[ClaimRow]
) -> dict[int, Acceptance | Refused]:
    """Take each idempotency key that is free.

    What the others get, by their keys: the acceptance of the request that has it, or, where that is another request,
    `IdempotencyConflict` as `Refused`.
    """
    before = connection.total_changes()
    connection.executemany(_TAKE, [row for _, row in claims])
    if connection.total_changes() - before == len(claims):  # as nearly always
        return {}
    earlier: dict[int, Acceptance | Refused] = {}
    for claim, (digest, _, key, _, _) in claims:
        fingerprint, first, at = fetch_one(connection, _HOLDER, (digest,))
        if fingerprint != claim.fingerprint:
            earlier[key] = Refused(IdempotencyConflict(claim.key))
        elif first != key:
            earlier[key] = Acceptance(ids.issue(first), at, replayed=True)
    return earlier


def take_claim(
    connection: apsw.Connection, ids: CorrelationIds, claim: IdempotencyClaim, key: int, now: float
) -> Acceptance | Refused | None:
    """As `take_claims` for one; None: it is taken. `QueueFull`, too, where it was free and is for repeats only."""
    earlier = take_claims(connection, ids, [row_of(claim, key, now)]).get(key)
    if earlier is None and claim.repeats_only:
        drop_claim(connection, claim, key)
        return Refused(no_repeat())
    return earlier


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
