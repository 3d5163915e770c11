# -*- test-case-name: tests.policy.test_json_text -*-
"""Strict parsing of JSON text without parsing what is in it.

RFC 8259 leaves repeated names and the depth to the reader, and a check that reads them differently from the handler can
be bypassed. So the text must be UTF-8 without a byte order mark and without lone surrogates, the names of the object
must be different, it may have 64 levels, and nothing may follow its end.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from operator import add
from typing import Any, TypeVar

import msgspec

from openhqm.errors import MalformedJSON

T = TypeVar("T")

MAX_DEPTH = 64
MOST_MEMBERS = 20_000
FEW = 8
_VALUE = msgspec.json.Decoder(msgspec.Raw)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NAME = re.compile(rb'[ \t\n\r,]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\n\r]*:[ \t\n\r]*')
_END = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*\Z")
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
# Brackets as bits, eight in a byte. For each byte: the change of depth over it, and the greatest depth within it.
_BITS = bytes.maketrans(b"[{]}", b"1100")
_NET = bytes((2 * byte.bit_count() - 8) % 256 for byte in range(256))
_DEEPEST = bytes(max(0, *accumulate(1 if byte >> bit & 1 else -1 for bit in range(7, -1, -1))) for byte in range(256))
_PIECE = 64 * 1024


def json_value(text: bytes, levels: int = MAX_DEPTH) -> bytes:
    """The JSON text of one value of at most ``levels`` levels, without the white space around it. `MalformedJSON`."""
    return bytes(_decoded(_VALUE, text, levels))


def members(text: bytes) -> dict[str, bytes]:
    """The members of the JSON object ``text``, each value in the bytes in which it came. Raises `MalformedJSON`."""
    raw = _decoded(_MEMBERS, text)
    if len(raw) > MOST_MEMBERS:
        raise MalformedJSON(f"the object has more than {MOST_MEMBERS} members")
    found = {name: bytes(value) for name, value in raw.items()}
    if len(found) > FEW or b"\\" in text or not all(text.count(b'"%b"' % name.encode()) == 1 for name in found):
        _refuse_duplicates(text, found)  # a short object without escapes in which each name occurs once needs no walk
    return found


def _decoded(decoder: msgspec.json.Decoder[T], text: bytes, levels: int = MAX_DEPTH) -> T:
    if text.count(b"{") + text.count(b"[") > levels and _depth(text) > levels:
        raise MalformedJSON(f"nested deeper than {levels} levels")
    try:
        text.isascii() or text.decode("utf-8")
        return decoder.decode(text)
    except UnicodeDecodeError as error:
        raise MalformedJSON(f"not UTF-8 at byte {error.start}") from None
    except msgspec.ValidationError:
        raise MalformedJSON("the document must be a JSON object") from None
    except msgspec.DecodeError as error:
        raise MalformedJSON(str(error)) from None
    except RecursionError:  # cannot happen with so few levels; handled anyway
        raise MalformedJSON(f"nested deeper than {levels} levels") from None


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """An object that `members` has checked, as a dict. Raises `MalformedJSON`, whose text begins with ``where``.

    Refused are repeated names, and numbers that a reader with 64-bit numbers would change.
    """
    try:
        value = _OBJECTS.decode(text.decode())
    except MalformedJSON as error:
        raise MalformedJSON(f"{where} {error.reason}") from None
    if not isinstance(value, dict):
        raise MalformedJSON(f"{where} must be an object")
    return value


def _pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(found)
    if len(names) != len(found):
        raise MalformedJSON("has a repeated name")
    return names


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise MalformedJSON("has a number beyond 64 bits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise MalformedJSON("has a number beyond 64 bits")
    return value


_OBJECTS = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_integer, parse_float=_number)


def _depth(text: bytes) -> int:
    """The greatest depth of the brackets outside of strings, computed for eight brackets at a time."""
    bits = _without_strings(text).translate(_BITS, _NOT_BRACKETS)
    bits += b"0" * (-len(bits) % 8)
    steps = int(bits or b"0", 2).to_bytes(len(bits) // 8, "big")
    before = accumulate(memoryview(steps.translate(_NET)).cast("b"), initial=0)
    return max(map(add, before, steps.translate(_DEEPEST)), default=0)


def _without_strings(text: bytes) -> bytes:
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside: list[bytes] = []
    inside = 0
    for start in range(0, len(text), _PIECE):  # in pieces, so that a text of quotes does not become millions of objects
        parts = text[start : start + _PIECE].split(b'"')
        outside.append(b"".join(parts[inside::2]))
        inside ^= (len(parts) - 1) & 1
    return b"".join(outside)


def _refuse_duplicates(text: bytes, found: dict[str, bytes]) -> None:
    """Walk through the valid object from name to name, comparing values without parsing them.

    Of a repeated name, ``found`` has the last value. The walk then stops at the first one: its value differs, or no
    name follows it. (Only a number can be the beginning of another value, which is a number.)
    """
    position = text.index(b"{") + 1
    seen: set[str] = set()
    while (match := _NAME.match(text, position)) is not None:
        written = match[1]
        name = json.loads(b'"%b"' % written) if b"\\" in written else written.decode()
        value = found[name]
        if name in seen or not text.startswith(value, match.end()):
            raise MalformedJSON(f"the name {name!r} is repeated")
        seen.add(name)
        position = match.end() + len(value)
    if _END.match(text, position) is None:
        raise MalformedJSON(f"the name {name!r} is repeated")
