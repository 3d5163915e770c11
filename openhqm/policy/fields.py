# -*- test-case-name: tests.policy.test_fields -*-
"""Fields of a request by their dotted names, found in the bytes of the payload without building what lies beside them.

A value found is JSON text, as it came: a number keeps its digits, a string its escapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs
import msgspec

from openhqm.messages import Submission

ROOTS = ("payload", "metadata", "headers", "correlation_id")
_LONGEST_INDEX = 9
_OBJECTS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LISTS = msgspec.json.Decoder(list[msgspec.Raw])

Level = Mapping[str, Any] | list[Any]


@attrs.frozen
class Field:
    """Where a value stands: below one of the `ROOTS`, or, with no such root, in the payload."""

    name: str
    root: str
    path: tuple[str, ...]

    @classmethod
    def parse(cls, name: str) -> Field:
        """The field called ``name``, as in ``payload.items.0.sku`` or ``headers.X-Kind``. `ValueError`."""
        first, *rest = name.split(".")
        if not first or not all(rest):
            raise ValueError(f"must be names joined by dots, as in payload.order.type, not {name!r}")
        if first not in ROOTS:
            return cls(name, "payload", (first, *rest))
        if first == "correlation_id" and rest:
            raise ValueError(f"correlation_id has no fields: {name!r}")
        if first == "headers" and rest:
            return cls(name, first, (".".join(rest).lower(),))  # a header's name may have dots of its own
        return cls(name, first, tuple(rest))


class Document:
    """One request to look things up in. Each level of its payload is read at most once, and only if it is asked for."""

    def __init__(self, submission: Submission, correlation_id: str = "") -> None:
        self.submission = submission
        self.correlation_id = correlation_id
        self._levels: dict[tuple[str, ...], Level] = {}

    def find(self, field: Field) -> bytes | None:
        """The value of ``field`` as JSON text; None where the request does not have it."""
        if field.root == "payload":
            return self.in_payload(field.path)
        if field.root == "correlation_id":
            return text_of(self.correlation_id)
        value: Any = self.submission.metadata
        if field.root == "headers":
            value = {name.lower(): text for name, text in self.submission.headers.items()}
        try:
            for part in field.path:
                value = _inside(value, part)
        except LookupError:
            return None
        return text_of(value)

    def in_payload(self, path: tuple[str, ...]) -> bytes | None:
        """The text that stands at ``path`` in the payload: names, and numbers in lists."""
        text: bytes | msgspec.Raw = self.submission.payload
        try:
            for depth, part in enumerate(path):
                text = _inside(self._level(path[:depth], text), part)
        except LookupError:
            return None
        return bytes(text).strip()

    def _level(self, path: tuple[str, ...], text: bytes | msgspec.Raw) -> Level:
        # Copied only to be read: of a long list, each element is asked for by its own path.
        level = self._levels.get(path)
        if level is None:
            level = self._levels[path] = _read(bytes(text))
        return level


def spelled(text: bytes) -> str:
    """JSON text as one writes it into a line: a string without its quotes, all else as compact JSON. `ValueError`."""
    if text[:1] != b'"':
        return msgspec.json.format(text, indent=-1).decode()
    value: str = json.loads(text)
    value.encode()  # half of a surrogate pair can be sent nowhere
    return value


def text_of(value: Any) -> bytes:
    """A value of Python's as JSON text."""
    # Half of a surrogate pair, which UTF-8 does not have, becomes the escape that JSON has for it.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def _read(text: bytes) -> Level:
    """The members or elements in ``text``; nothing where it has none."""
    level: Level = {}
    # A scalar has no fields, and what is no JSON (a queue may be fed by others) has none either.
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        level = (_LISTS if text.lstrip()[:1] == b"[" else _OBJECTS).decode(text)
    return level


def _inside(value: Any, part: str) -> Any:
    """What stands at ``part`` in an object or a list. `LookupError`."""
    if isinstance(value, Mapping):
        return value[part]
    if isinstance(value, list) and part.isascii() and part.isdigit() and len(part) <= _LONGEST_INDEX:
        return value[int(part)]
    raise LookupError(part)
