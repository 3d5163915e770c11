# -*- test-case-name: tests.policy.test_api_keys -*-
"""API keys: how one looks, what is kept of it, and what its owner may do.

A key is ``ohqm_``, 43 letters and digits (256 random bits), and 6 more that are the checksum of those, so that scanners
for secrets can find it and tell it from other text. Only its SHA-256 is kept: nothing that is read from the file of
keys opens a door, and a slow hash would add nothing to 256 bits.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import attrs

PREFIX = "ohqm_"
MOST_KEYS = 10_000
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET, _CHECKSUM = 43, 6
_KEY = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_SECRET}}})([0-9A-Za-z]{{{_CHECKSUM}}})")
TENANT_PATTERN = "[a-z0-9][a-z0-9-]{0,62}"
_TENANT = re.compile(TENANT_PATTERN)
_ID = re.compile(r"[0-9a-f]{12}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Role(enum.Enum):
    """What a key is good for. ``ADMIN``: the dead letters, metrics and health; it includes no other role."""

    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"

    __hash__ = object.__hash__  # each member exists once, and Enum's own hash is slow Python code


@attrs.frozen
class Caller:
    """Who has sent a request: the owner's name, what the key is good for, and which key it is, without its secret.

    ``expires`` is until when that is known, in seconds since 1970.
    """

    tenant: str
    roles: frozenset[Role]
    key_id: str
    expires: float = attrs.field(default=inf, eq=False)
    name: bytes = attrs.field(init=False, eq=False, repr=False)
    """Which caller it is, for what counts something of each: made once, for each submission asks for it."""

    @name.default
    def _name(self) -> bytes:
        return f"{self.tenant} {self.key_id}".encode()


@attrs.frozen
class Key:
    """What is kept of a key. Times are seconds since 1970; ``expires`` None: never."""

    id: str
    digest: str = attrs.field(repr=False)
    tenant: str
    roles: frozenset[Role]
    created: int
    expires: int | None = None

    @property
    def caller(self) -> Caller:
        """Its owner, for who may do what."""
        return Caller(self.tenant, self.roles, self.id, inf if self.expires is None else self.expires)

    def is_live(self, now: float) -> bool:
        """Whether it has not expired."""
        return self.expires is None or now < self.expires


def new_key(random: Callable[[int], bytes]) -> str:
    """A key. ``random`` returns so many bytes that cannot be guessed."""
    secret = _base62(int.from_bytes(random(32), "big"), _SECRET)
    return f"{PREFIX}{secret}{_checksum(secret)}"


def is_key(text: str) -> bool:
    """Whether it is a key by its form and checksum. That says nothing of whether it opens anything."""
    found = _KEY.fullmatch(text)
    return found is not None and hmac.compare_digest(_checksum(found[1]), found[2])


def digest_of(key: str) -> str:
    """What is kept of it."""
    return hashlib.sha256(key.encode()).hexdigest()


def check_tenant(name: str) -> str:
    """The name, where it can be one. `ValueError`: it may become part of the name of a queue or a metric."""
    if not _TENANT.fullmatch(name):
        raise ValueError("a tenant is named by 1 to 63 small letters, digits and hyphens, and begins with no hyphen")
    return name


def read_keys(text: str | bytes) -> list[Key]:
    """The keys of a file. `ValueError` with what is wrong, and never with the text itself."""
    try:
        document = json.loads(text)
        entries = document["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError('it must be JSON like {"keys": [...]}, as openhqm keys new writes it') from None
    if not isinstance(entries, list) or len(entries) > MOST_KEYS:
        raise ValueError(f"keys must be a list of at most {MOST_KEYS}")
    keys = [_read(number, entry) for number, entry in enumerate(entries)]
    if len({key.id for key in keys}) < len(keys) or len({key.digest for key in keys}) < len(keys):
        raise ValueError("two keys have the same id or the same digest")
    return keys


def write_keys(keys: Sequence[Key]) -> str:
    """The file of these keys."""
    entries = [
        {
            "id": key.id,
            "digest": key.digest,
            "tenant": key.tenant,
            "roles": sorted(role.value for role in key.roles),
            "created": key.created,
            "expires": key.expires,
        }
        for key in keys
    ]
    return json.dumps({"keys": entries}, indent=1) + "\n"


def _read(number: int, entry: Any) -> Key:
    wrong = ValueError(f"keys.{number} is no key that openhqm keys has written")
    if not isinstance(entry, Mapping) or entry.keys() != {"id", "digest", "tenant", "roles", "created", "expires"}:
        raise wrong
    try:
        key = Key(
            entry["id"],
            entry["digest"],
            check_tenant(entry["tenant"]),
            frozenset(Role(role) for role in entry["roles"]),
            entry["created"],
            entry["expires"],
        )
        sound = bool(_ID.fullmatch(key.id) and _DIGEST.fullmatch(key.digest) and key.roles)
    except (TypeError, ValueError):
        raise wrong from None
    if not sound or type(key.created) is not int or not (key.expires is None or type(key.expires) is int):
        raise wrong
    return key


def _base62(number: int, length: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits.rjust(length, "0")


def _checksum(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode()), _CHECKSUM)
