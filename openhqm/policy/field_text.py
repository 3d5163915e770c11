# -*- test-case-name: tests.policy.test_field_text -*-
"""The values of header fields: bytes on the wire (RFC 9110, section 5.5), text in what is stored.

A value that came over the wire is kept with one character for each byte, because its bytes are opaque. A value that a
handler wrote may have any characters.
"""

from __future__ import annotations


def field_bytes(text: str) -> bytes:
    """The bytes to send: one for each character, or UTF-8 where a character is none of the first 256."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8")


def readable(text: str) -> str:
    """The value as a person reads it: bytes that are UTF-8 become the characters that they stand for."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
