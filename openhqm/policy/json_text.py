# -*- test-case-name: tests.test_json_text -*-
"""Strict reading of a JSON object without parsing what lies inside it.

RFC 8259 leaves duplicate names and depth to the reader, and readers that differ are how requests get
smuggled past a check. So: UTF-8 without a byte order mark, no lone surrogates, no duplicate names in the
object itself, 64 levels at most, and nothing behind the end.
"""

from __future__ import annotations

import json
import math
from itertools import accumulate
from typing import Any

import msgspec

from openhqm.errors import MalformedJSON

MAX_DEPTH = 64
FEW = 8
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BRACKETS = b"[]{}"
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))


def members(text: bytes) -> dict[str, bytes]:
    """The members of the JSON object ``text``, each value as the bytes it came as. `MalformedJSON`."""
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise MalformedJSON(f"nested deeper than {MAX_DEPTH} levels")
    try:
        text.isascii() or text.decode("utf-8")
        found = _MEMBERS.decode(text)
    except UnicodeDecodeError as error:
        raise MalformedJSON(f"not UTF-8 at byte {error.start}") from None
    except msgspec.ValidationError:
        raise MalformedJSON("the document must be a JSON object") from None
    except msgspec.DecodeError as error:
        raise MalformedJSON(str(error)) from None
    except RecursionError:  # cannot come with so few levels, and if it does it is no reason to fall over
        raise MalformedJSON(f"nested deeper than {MAX_DEPTH} levels") from None
    if len(found) > FEW or b"\\u" in text or not all(_stands_once(name, text) for name in found):
        _refuse_duplicates(text)
    return {name: bytes(value) for name, value in found.items()}


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


def _stands_once(name: str, text: bytes) -> bool:
    """Whether it is plain that no other member has this name: the others need the slow look."""
    return name.isidentifier() and text.count(b'"%b"' % name.encode()) == 1


def _depth(text: bytes) -> int:
    """How deep the brackets outside of strings nest: opening ones count 1, closing ones -1."""
    steps = _without_strings(text).translate(_STEPS, _NOT_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0)


def _without_strings(text: bytes) -> bytes:
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(text.split(b'"')[::2])


def _refuse_duplicates(text: bytes) -> None:
    outermost: list[tuple[str, Any]] = []

    def pairs(found: list[tuple[str, Any]]) -> None:
        outermost[:] = found  # the outermost object is the last one finished

    json.loads(text, object_pairs_hook=pairs, parse_int=str, parse_float=str)
    seen: set[str] = set()
    for name, _ in outermost:
        if name in seen:
            raise MalformedJSON(f"the name {name!r} stands twice")
        seen.add(name)
