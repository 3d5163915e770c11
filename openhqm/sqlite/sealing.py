# -*- test-case-name: tests.sqlite.test_sealing -*-
"""Encryption of what callers and handlers have written, in the embedded file: AES-256-GCM, for each value by itself.

A sealed value is::

    1 | id of the key (8 bytes) | salt (16) | counter (8) | ciphertext and tag

Salt and counter are never used twice with a key: each process that opens the file draws a salt, and counts from there.
The key of a value is derived (HKDF-SHA256) from the operator's key, the salt and the secret of this file. Where the
value stands, table and row, is authenticated with it, so that no value can be moved to another row, column or file.
"""

from __future__ import annotations

import binascii
import os
from base64 import b64decode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import count
from typing import Any

from twisted.logger import Logger

from openhqm.errors import CannotStart, how_to_install
from openhqm.runtime.private_files import read_private

KEY_BYTES = 32
MOST_BYTES = 4096
ID_BYTES, SALT_BYTES, COUNTER_BYTES = 8, 16, 8
_VERSION = b"\x01"
_HEAD = len(_VERSION) + ID_BYTES + SALT_BYTES + COUNTER_BYTES
_KEYS = "queue.connection.sqlite.encryption_key_files"


def read_keys(paths: Sequence[str]) -> dict[bytes, bytes]:
    """The keys in files, by their ids, in their order. `CannotStart` names the file that cannot be used."""
    keys: dict[bytes, bytes] = {}
    for path in paths:
        try:
            _, text = read_private(path, MOST_BYTES)
            key = _key(text.strip())
        except ValueError as error:
            raise CannotStart(f"{_KEYS}: {path}: {error}") from None
        keys[key_id(key)] = key
    return keys


def key_id(key: bytes) -> bytes:
    """What a key is known by: nothing of it follows from that."""
    return sha256(b"OpenHQM key id\x00" + key).digest()[:ID_BYTES]


def _key(text: bytes) -> bytes:
    for decode in (binascii.unhexlify, lambda text: b64decode(text, validate=True)):
        try:
            key: bytes = decode(text)
        except ValueError:
            continue
        if len(key) == KEY_BYTES:
            return key
    raise ValueError("must be 32 random bytes in base64 or hexadecimal digits: openssl rand -base64 32")


class Seals:
    """Seals and opens values by ``keys``, of which the first seals. ``secret`` is that of the file."""

    _log = Logger()

    def __init__(self, keys: Mapping[bytes, bytes], secret: bytes) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF
        except ImportError:
            raise CannotStart(f"{_KEYS} needs cryptography: {how_to_install('encryption')}") from None
        self.ids = list(keys)
        self._invalid = InvalidTag
        salt = os.urandom(SALT_BYTES)

        @lru_cache(maxsize=1024)
        def cipher(id: bytes, salt: bytes) -> Any:
            return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, b"OpenHQM file\x00" + secret).derive(keys[id]))

        self._cipher = cipher
        self._seal = cipher(self.ids[0], salt).encrypt
        self._front = _VERSION + self.ids[0] + salt
        self._counter = count()

    def seal(self, place: Any, value: Any) -> Any:
        """The sealed ``value``, which stands in ``place``."""
        if value is None:
            return None
        head = self._front + next(self._counter).to_bytes(COUNTER_BYTES, "big")
        return head + bytes(self._seal(bytes(4) + head[-COUNTER_BYTES:], value, head + place.encode()))

    def open(self, place: Any, sealed: Any) -> Any:
        """The value that stands in ``place``. Where it was not sealed there, the log says so, and it is empty."""
        if sealed is None:
            return None
        head, rest = sealed[:_HEAD], sealed[_HEAD:]
        id, salt = head[1 : 1 + ID_BYTES], head[1 + ID_BYTES : 1 + ID_BYTES + SALT_BYTES]
        if sealed[:1] != _VERSION or len(head) < _HEAD or id not in self.ids:
            return self._refuse(place)
        try:
            nonce = bytes(4) + head[-COUNTER_BYTES:]
            opened: bytes = self._cipher(id, salt).decrypt(nonce, rest, head + place.encode())
        except self._invalid:
            return self._refuse(place)
        return opened

    def _refuse(self, place: str) -> bytes:
        self._log.error(
            "what stands in {place} of the embedded file was not sealed there with one of its keys: it was changed or "
            "moved by another program, and counts as empty",
            place=place,
        )
        return b""
