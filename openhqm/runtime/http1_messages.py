# -*- test-case-name: tests.test_http1 -*-
"""A request that has come in whole, an answer that goes out whole, and the bytes of the latter."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

import attrs
from twisted.web.http import RESPONSES, datetimeToString

from openhqm.runtime.http1_rules import Head

SERVER = b"OpenHQM"
# RFC 9110 has renamed some since Twisted's table was made, and RFC 6585 is not in it.
REASONS = {
    **RESPONSES,
    408: b"Request Timeout",
    504: b"Gateway Timeout",
    414: b"URI Too Long",
    505: b"HTTP Version Not Supported",
    413: b"Content Too Large",
    422: b"Unprocessable Content",
    431: b"Request Header Fields Too Large",
}
Fields = tuple[tuple[bytes, bytes], ...]


@attrs.frozen
class Answer:
    """A whole response: status, body, content type, and further header fields in their usual spelling."""

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    fields: Fields = ()


@attrs.define
class Message:
    """A request that has come in whole."""

    head: Head
    body: bytes
    keep_alive: bool
    field: Callable[[bytes], bytes | None]
    """The value of a header field by its name in lower case; the last one, where there are several."""


ShortLane = Callable[[Message], Coroutine[Any, Any, Answer] | None]
"""What is served without a ``twisted.web`` request, or None. It raises nothing but `CancelledError`."""


_date: tuple[int, bytes] = (0, b"")
_heads: dict[int, bytes] = {}


def render(answer: Answer, version: bytes, keep_alive: bool) -> bytes:
    """A response as bytes, in one piece, with the fields in the order in which ``twisted.web`` has them."""
    status = answer.status
    first = _heads.get(status)
    if first is None:
        first = _heads[status] = b"%d %b\r\n" % (status, REASONS.get(status, b"Unknown"))
    pieces = [version, b" ", first]
    if not keep_alive:
        pieces.append(b"Connection: close\r\n")
    pieces += (b"Server: %b\r\nDate: " % SERVER, _http_date(), b"\r\n")
    pieces += (b"Content-Type: ", answer.content_type, b"\r\nContent-Length: %d\r\n" % len(answer.body))
    pieces.append(b"Cache-Control: no-store\r\n")
    for name, value in answer.fields:
        pieces += (name, b": ", value, b"\r\n")
    pieces += (b"\r\n", answer.body)
    return b"".join(pieces)


def _http_date() -> bytes:
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, datetimeToString(now))
    return _date[1]
