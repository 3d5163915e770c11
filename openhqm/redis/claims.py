# -*- test-case-name: tests.redis.test_contract -*-
"""Idempotency keys as `accept.lua` takes them."""

from __future__ import annotations

from hashlib import blake2b

from openhqm.messages import IdempotencyClaim

NO_CLAIM = ("", b"", "")


def claim_arguments(claim: IdempotencyClaim | None) -> tuple[str, bytes, str]:
    """The name of the key, the fingerprint and the lifetime; without one, only a repeat is accepted."""
    if claim is None:
        return NO_CLAIM
    digest = blake2b(f"{claim.scope} {claim.key}".encode(), digest_size=16).hexdigest()
    return digest, claim.fingerprint, "" if claim.repeats_only else repr(claim.lifetime)
