# -*- test-case-name: tests.policy.test_ids -*-
"""Correlation ids that contain a number: a UUID v4 made of the encrypted number and a keyed check.

A random id needs an index over random keys, which makes accepting requests in an embedded file slow. An id made here is
found by its number, without an index. It tells its holder nothing about the number. An id that was never given out is
refused without a look-up: guessing a valid one takes 2**65 tries.

The construction is a synthetic initialisation vector (in the spirit of RFC 5297, section 2.1): the check is a keyed
digest of the number, and the number is masked by a keyed digest of the check.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import blake2b

NUMBER_BITS = 56
_CHECK_BITS = 122 - NUMBER_BITS
_SPARE_BITS = 72 - _CHECK_BITS
_NUMBER_MASK = (1 << NUMBER_BITS) - 1
_LOW = (1 << 62) - 1
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


class CorrelationIds:
    """Turns numbers below 2**56 into ids and back, under a secret of at least 16 bytes."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the secret for correlation ids must have at least 16 bytes")
        secret = blake2b(secret, digest_size=64).digest()
        self._check = blake2b(key=secret, digest_size=9, person=b"openhqm-check")
        self._mask = blake2b(key=secret, digest_size=7, person=b"openhqm-mask")
        self._finish = blake2b(key=secret, digest_size=24, person=b"openhqm-finish")

    def issue(self, number: int) -> str:
        """The id of ``number``: the same one every time."""
        # Written out, for each accepted request pays for it.
        digest = self._check.copy()
        digest.update(number.to_bytes(7, "big"))
        check = int.from_bytes(digest.digest(), "big") >> _SPARE_BITS
        digest = self._mask.copy()
        digest.update(check.to_bytes(9, "big"))
        bits = check << NUMBER_BITS | (number ^ int.from_bytes(digest.digest(), "big"))
        # RFC 9562, section 5.4: 48 bits, version 4, 12 bits, variant 10, 62 bits
        value = (bits >> 74) << 80 | 0x4 << 76 | (bits >> 62 & 0xFFF) << 64 | 0x2 << 62 | bits & _LOW
        text = value.to_bytes(16, "big").hex()  # in half the time of a format
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def completion_token(self, correlation_id: str) -> str:
        """What proves that its holder was told so for this id: the same one every time, and for any text."""
        digest = self._finish.copy()
        digest.update(correlation_id.lower().encode())
        return urlsafe_b64encode(digest.digest()).decode()

    def number(self, correlation_id: str) -> int | None:
        """The number of an id, or None where the id was not made under this secret."""
        text = correlation_id.lower()
        if _UUID4.match(text) is None:
            return None
        value = int(text.replace("-", ""), 16)
        bits = (value >> 80) << 74 | ((value >> 64) & 0xFFF) << 62 | value & ((1 << 62) - 1)
        check = bits >> NUMBER_BITS
        number = (bits & _NUMBER_MASK) ^ self._mask_of(check)
        return number if self._check_of(number) == check else None

    def _check_of(self, number: int) -> int:
        digest = self._check.copy()
        digest.update(number.to_bytes(7, "big"))
        return int.from_bytes(digest.digest(), "big") >> _SPARE_BITS

    def _mask_of(self, check: int) -> int:
        digest = self._mask.copy()
        digest.update(check.to_bytes(9, "big"))
        return int.from_bytes(digest.digest(), "big")
