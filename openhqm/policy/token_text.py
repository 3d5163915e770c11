# -*- test-case-name: tests.policy.test_token_text -*-
"""The text of a signed JSON Web Token (RFC 7519 in the compact form of RFC 7515), before its signature is looked at.

Readers differ in what they forgive: padding, repeated names, numbers as strings. What one reader forgives, another one
may read differently, so nothing is forgiven here. A header that says where a key is, or brings one along, is refused:
keys come from the configuration only (RFC 8725, sections 3.1 and 3.10).
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, NoReturn

import attrs

from openhqm.errors import MalformedJSON
from openhqm.policy.json_text import members, parse_object

MOST_BYTES = 8 * 1024
MOST_NAME = 256
_PART = re.compile(rb"[A-Za-z0-9_-]+")
_KEYS_OF_THE_TOKEN = ("jku", "jwk", "x5u", "x5c")
_OTHER_FORMS = ("enc", "zip", "epk", "b64", "cty")
"""Encryption, compression, a payload that is not encoded, and a token in a token."""
_TYPES = ("jwt", "at+jwt", "application/at+jwt")
"""A token of another type (RFC 8725, section 3.11) was signed by the same key for another purpose."""


class TokenRefused(Exception):
    """A token is not good. The reason is for the log of the operator, and not for the caller. It quotes no token."""


def refuse(reason: str) -> NoReturn:
    """Raise `TokenRefused`."""
    raise TokenRefused(reason)


@attrs.frozen
class TokenText:
    """A token, of which nothing is verified. ``signed`` is what its ``signature`` is about."""

    algorithm: str
    key_id: str | None
    claims: Mapping[str, Any] = attrs.field(repr=False)
    signed: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)


def read_token(token: bytes) -> TokenText:
    """The parts of a token. Raises `TokenRefused`."""
    if len(token) > MOST_BYTES:
        refuse(f"is longer than {MOST_BYTES} bytes")
    parts = token.split(b".")
    if len(parts) != 3:
        refuse(f"has {len(parts)} parts, and a signed token has 3")
    header, algorithm = _read_header(parts[0])
    key_id = header.get("kid")
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= MOST_NAME):
        refuse(f"has a kid that is not a string of 1 to {MOST_NAME} characters")
    claims = _object(parts[1], "payload")
    return TokenText(algorithm, key_id, claims, parts[0] + b"." + parts[1], _decode(parts[2], "signature"))


def _read_header(part: bytes) -> tuple[Mapping[str, Any], str]:
    header = _object(part, "header")
    for name in _KEYS_OF_THE_TOKEN:
        if name in header:
            refuse(f"names a key of its own ({name})")
    if "crit" in header:
        refuse("has critical extensions (crit), and none is known here")
    for name in _OTHER_FORMS:
        if name in header:
            refuse(f"has a form that is not read here ({name})")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        refuse("is of another type (typ)")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        refuse("has no algorithm (alg)")
    return header, algorithm


def _object(part: bytes, what: str) -> Mapping[str, Any]:
    text = _decode(part, what)
    try:
        members(text)
        return parse_object(text, what)
    except MalformedJSON:  # its reason may quote the token
        refuse(f"has a {what} that is not a JSON object, or one that readers differ about")


def _decode(part: bytes, what: str) -> bytes:
    if _PART.fullmatch(part) is None:
        refuse(f"has a {what} that is not base64url without padding")
    try:
        text = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        refuse(f"has a {what} that is not base64url")
    if urlsafe_b64encode(text).rstrip(b"=") != part:
        refuse(f"has a {what} with stray bits at its end")
    return text
