# -*- test-case-name: tests.http1.test_field_lines -*-
"""The header fields of a request as the lines in which they are sent, checked once for many requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
CONTROLS = bytes({*range(32), 127} - {9})
FRAMING = frozenset((b"content-length", b"transfer-encoding"))
"""The client frames the request itself."""

MOST_NAMES = 256
_NAMES: dict[bytes, bytes] = {}  # names of header fields that were found valid, in lower case


class FieldLines:
    """Fields that were checked, as they are sent: ``lines`` end with a line end each. ``Host`` is not among them."""

    __slots__ = ("lines",)

    def __init__(self, lines: bytes) -> None:
        self.lines = lines

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        for line in self.lines.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b": ")
            yield name, value


class FieldTemplate:
    """The header fields of many requests. The value of a field is None where each request has its own.

    `ValueError` where a request with such fields cannot be written, or ``Host`` or what frames it is among them.
    """

    def __init__(self, fields: Iterable[tuple[bytes, bytes | None]]) -> None:
        text = b""
        for name, value in fields:
            if lower(name) in FRAMING or lower(name) == b"host":
                raise ValueError(f"{name!r} is not for a template")
            if value is not None:
                check_value(name, value)
            text += name.replace(b"%", b"%%") + b": "
            text += b"%b\r\n" if value is None else value.replace(b"%", b"%%") + b"\r\n"
        self._text = text

    def fill(self, values: Sequence[bytes]) -> FieldLines:
        """The fields with the ``values`` of a request, in their order. `ValueError` for one that cannot be sent."""
        text = b"".join(values)
        if len(text.translate(None, CONTROLS)) != len(text):
            raise ValueError("the value of a header field of the request has a control character")
        return FieldLines(self._text % tuple(values))


def check_value(name: bytes, value: bytes) -> None:
    """`ValueError` where ``value`` cannot be that of a header field."""
    if CONTROL.search(value) is not None:
        raise ValueError(f"the header field {name[:64]!r} of the request has a control character")


def lower(name: bytes) -> bytes:
    """The name of a header field in lower case. `ValueError` where it is none."""
    found = _NAMES.get(name)
    if found is not None:
        return found
    if TOKEN.match(name) is None:
        raise ValueError(f"{name[:64]!r} is not the name of a header field")
    if len(_NAMES) >= MOST_NAMES:
        _NAMES.clear()
    return _NAMES.setdefault(name, name.lower())
