# -*- test-case-name: tests.policy.test_json_text -*-
"""Strict reading of a JSON object without parsing what lies inside it.

RFC 8259 leaves duplicate names and depth to the reader, and readers that differ are how requests get
smuggled past a check. So: UTF-8 without a byte order mark, no lone surrogates, no duplicate names in the
object itself, 64 levels at most, and nothing behind the end.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from operator import add
from typing import Any

import msgspec

from openhqm.errors import MalformedJSON

MAX_DEPTH = 64
MOST_MEMBERS = 20_000
FEW = 8
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NAME = re.compile(rb'[ \t\n\r,]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\n\r]*:[ \t\n\r]*')
_END = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*\Z")
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
# Brackets as bits, and for each byte of eight of them: how far it leads down or up, and how deep it goes on its way.
_BITS = bytes.maketrans(b"[{]}", b"1100")
_NET = bytes((2 * byte.bit_count() - 8) % 256 for byte in range(256))
_DEEPEST = bytes(
    max(0, *accumulate(1 if byte >> place & 1 else -1 for place in range(7, -1, -1))) for byte in range(256)
)
_PIECE = 64 * 1024


def members(text: bytes) -> dict[str, bytes]:
    """The members of the JSON object ``text``, each value as the bytes it came as. `MalformedJSON`."""
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise MalformedJSON(f"nested deeper than {MAX_DEPTH} levels")
    try:
        text.isascii() or text.decode("utf-8")
        raw = _MEMBERS.decode(text)
    except UnicodeDecodeError as error:
        raise MalformedJSON(f"not UTF-8 at byte {error.start}") from None
    except msgspec.ValidationError:
        raise MalformedJSON("the document must be a JSON object") from None
    except msgspec.DecodeError as error:
        raise MalformedJSON(str(error)) from None
    except RecursionError:  # cannot come with so few levels, and if it does it is no reason to fall over
        raise MalformedJSON(f"nested deeper than {MAX_DEPTH} levels") from None
    if len(raw) > MOST_MEMBERS:
        raise MalformedJSON(f"the object has more than {MOST_MEMBERS} members")
    found = {name: bytes(value) for name, value in raw.items()}
    if len(found) > FEW or b"\\" in text or not all(text.count(b'"%b"' % name.encode()) == 1 for name in found):
        _refuse_duplicates(text, found)  # else it is plain that each name stands once
    return found


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """An object that `members` found sound, as a dict. `MalformedJSON` says what is wrong ``where``.

    Duplicate names are refused, and numbers that a reader with 64-bit numbers would change silently.
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
        raise MalformedJSON("has the same name twice")
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
    """How deep the brackets outside of strings nest. Eight of them are one step, and nothing is kept of a step."""
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
    for start in range(0, len(text), _PIECE):  # all at once, a text of quotes would become millions of objects
        parts = text[start : start + _PIECE].split(b'"')
        outside.append(b"".join(parts[inside::2]))
        inside ^= (len(parts) - 1) & 1
    return b"".join(outside)


def _refuse_duplicates(text: bytes, found: dict[str, bytes]) -> None:
    """Walk through the object, which is sound, from name to name; values are compared, and never parsed.

    Of a name that stands twice the last value was found, so that the walk stumbles over the first one: it is another,
    or what is behind it is not a name. (Only of two numbers can one be the beginning of the other.)
    """
    place = text.index(b"{") + 1
    seen: set[str] = set()
    while (match := _NAME.match(text, place)) is not None:
        written = match[1]
        name = json.loads(b'"%b"' % written) if b"\\" in written else written.decode()
        value = found[name]
        if name in seen or not text.startswith(value, match.end()):
            raise MalformedJSON(f"the name {name!r} stands twice")
        seen.add(name)
        place = match.end() + len(value)
    if _END.match(text, place) is None:
        raise MalformedJSON(f"the name {name!r} stands twice")
