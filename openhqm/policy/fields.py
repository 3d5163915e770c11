# -*- test-case-name: tests.policy.test_fields -*-
"""Fields of a request by their dotted names, found in the bytes of the payload without parsing the rest of it.

A value is JSON text as it came: a number keeps its digits, a string its escapes.
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
    """The place of a value in a request: a path below one of the `ROOTS`. A name without a root is in the payload."""

    name: str
    root: str
    path: tuple[str, ...]

    @classmethod
    def parse(cls, name: str) -> Field:
        """The field called ``name``, as in ``payload.items.0.sku`` or ``headers.X-Kind``. Raises `ValueError`."""
        first, *rest = name.split(".")
        if not first or not all(rest):
            raise ValueError(f"must be names joined by dots, as in payload.order.type, not {name!r}")
        if first not in ROOTS:
            return cls(name, "payload", (first, *rest))
        if first == "correlation_id" and rest:
            raise ValueError(f"correlation_id has no fields: {name!r}")
        if first == "headers" and rest:
            return cls(name, first, (".".join(rest).lower(),))  # a header name may contain dots
        return cls(name, first, tuple(rest))


class Document:
    """A request whose fields are looked up. Each level of its payload is parsed at most once, and only when needed."""

    def __init__(self, submission: Submission, correlation_id: str = "") -> None:
        self.submission = submission
        self.correlation_id = correlation_id
        self._levels: dict[tuple[str, ...], Level] = {}

    @property
    def operation(self) -> str | None:
        """``metadata.operation``, else ``payload.operation``; None where it is not a string."""
        operation = self.submission.metadata.get("operation")
        if operation is None:
            text = self.in_payload(("operation",))
            operation = json.loads(text) if text is not None and text[:1] == b'"' else None
        return operation if isinstance(operation, str) else None

    def find(self, field: Field) -> bytes | None:
        """The value of ``field`` as JSON text; None where the request does not have it."""
        if field.root == "payload":
            return self.in_payload(field.path)
        if field.root == "correlation_id":
            return to_json(self.correlation_id)
        value: Any = self.submission.metadata
        if field.root == "headers":
            value = {name.lower(): text for name, text in self.submission.headers.items()}
        try:
            for part in field.path:
                value = _item(value, part)
        except LookupError:
            return None
        return to_json(value)

    def in_payload(self, path: tuple[str, ...]) -> bytes | None:
        """The JSON text at ``path`` in the payload, whose parts are member names and list indexes."""
        text: bytes | msgspec.Raw = self.submission.payload
        try:
            for depth, part in enumerate(path):
                text = _item(self._level(path[:depth], text), part)
        except LookupError:
            return None
        return bytes(text).strip()

    def _level(self, path: tuple[str, ...], text: bytes | msgspec.Raw) -> Level:
        # The bytes of a level are copied only when it is parsed: elements of a long list each have their own path.
        level = self._levels.get(path)
        if level is None:
            level = self._levels[path] = _read(bytes(text))
        return level


def to_text(text: bytes) -> str:
    """JSON text as plain text: a string without its quotes, any other value as compact JSON. Raises `ValueError`."""
    if text[:1] != b'"':
        return msgspec.json.format(text, indent=-1).decode()
    value: str = json.loads(text)
    value.encode()  # a lone surrogate has no encoding, and raises UnicodeEncodeError, a ValueError
    return value


def to_json(value: Any) -> bytes:
    """A Python value as JSON text."""
    # A lone surrogate, which UTF-8 does not have, becomes its JSON escape.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def _read(text: bytes) -> Level:
    """The members or elements of the JSON ``text``; none where it is a scalar or not JSON."""
    level: Level = {}
    # A scalar has no members. Neither has a payload that is not JSON, which another program may put into a queue.
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        level = (_LISTS if text.lstrip()[:1] == b"[" else _OBJECTS).decode(text)
    return level


def _item(value: Any, part: str) -> Any:
    """The member or element ``part`` of an object or a list. Raises `LookupError`."""
    if isinstance(value, Mapping):
        return value[part]
    if isinstance(value, list) and part.isascii() and part.isdigit() and len(part) <= _LONGEST_INDEX:
        return value[int(part)]
    raise LookupError(part)
