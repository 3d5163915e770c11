# -*- test-case-name: tests.policy.test_webhooks -*-
"""Signatures of what is posted to others, by Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterable

_PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes of a secret (section "Signature scheme")."""


def read_secret(text: str) -> bytes:
    """The bytes of a secret, which is written as ``whsec_`` and their base64. `ValueError`, without the text."""
    try:
        if not text.startswith(_PREFIX):
            raise ValueError
        secret = b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError:  # or binascii.Error, which is one
        raise ValueError(f"must be {_PREFIX} and base64, as printf whsec_; openssl rand -base64 32") from None
    if not SHORTEST <= len(secret) <= LONGEST:
        raise ValueError(f"must have {SHORTEST} to {LONGEST} bytes in its base64, not {len(secret)}")
    return secret


def signature(secrets: Iterable[bytes], id: str, timestamp: int, content: bytes) -> str:
    """The value of ``webhook-signature``: one signature for each secret, so that receivers can change over."""
    signed = b"%b.%d.%b" % (id.encode("ascii"), timestamp, content)
    return " ".join(f"v1,{b64encode(hmac.digest(secret, signed, 'sha256')).decode()}" for secret in secrets)
