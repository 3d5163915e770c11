# -*- test-case-name: tests.queue.test_contracts -*-
"""Idempotency keys in the embedded file. What is given a connection runs inside an operation of `SqliteFile.write`.

The table is in the order of their digests. Those of keys that are numbers, or begin with one, as the identity of a
message does that its broker counts, lie beside those of the numbers around: else each of them would change a page of
its own, whose 4 KiB are written twice, and changed again when it expires.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
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
_HAS_PLAIN = "SELECT 1 FROM meta WHERE name = 'plain_claims_until' AND value > ?"
_NUMBERED = re.compile(r"([0-9]{1,15})(?:-|\Z)")
_NEIGHBOURS = 7  # 2**7 numbers lie together
_PLAIN_BYTES = 16


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
    taken = connection.total_changes() - before
    if taken == len(claims) and fetch_one(connection, _HAS_PLAIN, (claims[0][1][3],)) is None:  # as nearly always
        return {}
    earlier: dict[int, Acceptance | Refused] = {}
    for claim, (digest, _, key, now, _) in claims:
        holder = None
        if len(digest) > _PLAIN_BYTES:  # a process that knew layout 5 only may have taken it
            holder = fetch_one(connection, f"{_HOLDER} AND expires > ?", (digest[-_PLAIN_BYTES:], now))
        if holder is not None:
            drop_claim(connection, claim, key)
        fingerprint, first, at = holder or fetch_one(connection, _HOLDER, (digest,))
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
    digests = [(claim, _digest(claim)) for claim in claims]
    digests += [(claim, digest[-_PLAIN_BYTES:]) for claim, digest in digests if len(digest) > _PLAIN_BYTES]
    values = [(now + claim.lifetime, digest, claim.fingerprint) for claim, digest in digests]
    connection.executemany("UPDATE claims SET expires = ? WHERE digest = ? AND fingerprint = ?", values)


def _digest(claim: IdempotencyClaim) -> bytes:
    digest = blake2b(f"{claim.scope} {claim.key}".encode(), digest_size=_PLAIN_BYTES).digest()
    numbered = _NUMBERED.match(claim.key)
    return digest if numbered is None else _place(claim.scope, int(numbered[1]) >> _NEIGHBOURS) + digest


@lru_cache(maxsize=64)
def _place(scope: str, about: int) -> bytes:
    """Where the claims of some numbers lie."""
    return blake2b(f"{scope} {about}".encode(), digest_size=4).digest()
