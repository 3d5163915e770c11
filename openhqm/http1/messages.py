# -*- test-case-name: tests.http1.test_channel -*-
"""A request that has come in whole, an answer that goes out whole, and the bytes of the latter."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import attrs
from twisted.web.http import RESPONSES, datetimeToString

from openhqm.http1.rules import Head

SERVER = b"OpenHQM"
# RFC 9110 has renamed some since Twisted's table was made; RFC 6585 and RFC 5842 are not in it.
REASONS = {
    **RESPONSES,
    408: b"Request Timeout",
    504: b"Gateway Timeout",
    414: b"URI Too Long",
    505: b"HTTP Version Not Supported",
    413: b"Content Too Large",
    422: b"Unprocessable Content",
    431: b"Request Header Fields Too Large",
    508: b"Loop Detected",
}
Fields = tuple[tuple[bytes, bytes], ...]


@attrs.frozen
class Answer:
    """A whole response: status, body, content type, and further header fields in their usual spelling.

    ``passed_on``: it is somebody else's, and its own fields say all there is to say about its type and about caching.
    """

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    fields: Fields = ()
    passed_on: bool = False


class Outlet(Protocol):
    """Where a response of unknown length goes, piece by piece."""

    def write(self, data: bytes) -> object:
        """Send this."""

    def finish(self) -> object:
        """It is complete."""

    def registerProducer(self, producer: Any, streaming: bool) -> object:
        """Tell ``producer`` when the reader does not keep up, when it does again, and when it is gone."""

    def unregisterProducer(self) -> object:
        """Tell it no more."""


@attrs.frozen
class Streaming:
    """A response of unknown length: its header fields, and what begins it."""

    fields: Fields
    begin: Callable[[Outlet], object]


@attrs.define
class Message:
    """A request that has come in whole."""

    head: Head
    body: bytes
    keep_alive: bool
    field: Callable[[bytes], bytes | None]
    """The value of a header field by its name in lower case; the last one, where there are several."""
    peer: str | None = None
    """Who sent it, and by which scheme: known where requests are passed on."""
    scheme: str = "http"


FastPath = Callable[[Message], Coroutine[Any, Any, Answer | Streaming] | None]
"""What is served without a ``twisted.web`` request, or None. It raises nothing but `CancelledError`."""


_date: tuple[int, bytes] = (0, b"")
_heads: dict[tuple[int, bytes, bool], bytes] = {}  # as they begin within the second of `_date`


def render(answer: Answer, version: bytes, keep_alive: bool, head_only: bool = False) -> bytes:
    """A response as bytes, in one piece, with the fields in the order in which ``twisted.web`` has them.

    ``head_only`` is for HEAD: all but the body (RFC 9110, section 9.3.2).
    """
    pieces = [_head(answer.status, version, keep_alive)]
    if answer.passed_on:
        if answer.status not in (204, 304):
            pieces.append(b"Content-Length: %d\r\n" % len(answer.body))
    elif answer.status == 204:
        pieces.append(b"Cache-Control: no-store\r\n")
    else:
        pieces += (b"Content-Type: ", answer.content_type, b"\r\nContent-Length: %d\r\n" % len(answer.body))
        pieces.append(b"Cache-Control: no-store\r\n")
    for name, value in answer.fields:
        pieces += (name, b": ", value, b"\r\n")
    pieces += (b"\r\n", b"" if head_only else answer.body)
    return b"".join(pieces)


def render_head(streaming: Streaming, version: bytes, keep_alive: bool) -> bytes:
    """The head of a response whose length nobody knows: chunked, or (HTTP/1.0) as long as the connection."""
    pieces = [_head(200, version, keep_alive)]
    for name, value in streaming.fields:
        pieces += (name, b": ", value, b"\r\n")
    pieces.append(b"Transfer-Encoding: chunked\r\n\r\n" if version == b"HTTP/1.1" else b"\r\n")
    return b"".join(pieces)


def _head(status: int, version: bytes, keep_alive: bool) -> bytes:
    date = http_date()
    head = _heads.get((status, version, keep_alive))
    if head is None:
        head = b"%b %d %b\r\n%bServer: %b\r\nDate: %b\r\n" % (
            version,
            status,
            REASONS.get(status, b"Unknown"),
            b"" if keep_alive else b"Connection: close\r\n",
            SERVER,
            date,
        )
        _heads[status, version, keep_alive] = head
    return head


def http_date() -> bytes:
    """Now, as the Date field has it; made once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, datetimeToString(now))
        _heads.clear()
    return _date[1]
