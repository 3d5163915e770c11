# -*- test-case-name: tests.http1.test_channel -*-
"""A request that was read completely, the answers to it, and the bytes of an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec
from twisted.web.http import RESPONSES, datetimeToString

from openhqm.http1.rules import Head

SERVER = b"OpenHQM"
# RFC 9110 renamed some of what is in Twisted's table, and the table lacks those of later ones, such as RFC 6585.
REASONS = {
    **RESPONSES,
    408: b"Request Timeout",
    504: b"Gateway Timeout",
    414: b"URI Too Long",
    505: b"HTTP Version Not Supported",
    413: b"Content Too Large",
    422: b"Unprocessable Content",
    421: b"Misdirected Request",
    425: b"Too Early",
    426: b"Upgrade Required",
    428: b"Precondition Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    451: b"Unavailable For Legal Reasons",
    508: b"Loop Detected",
    511: b"Network Authentication Required",
}
Fields = tuple[tuple[bytes, bytes], ...]


class Answer(msgspec.Struct, frozen=True):
    """A complete response: status code, body, content type, and further header fields in their usual spelling.

    ``passed_on``: the response is another server's. Its own fields then describe its type and its caching, and
    ``content_type`` is not used. ``length`` is the ``Content-Length`` to announce for it; None: none.
    """

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    fields: Fields = ()
    passed_on: bool = False
    length: int | None = None


class ResponseWriter(Protocol):
    """Writes the body of a response of unknown length, piece by piece."""

    def write(self, data: bytes) -> object:
        """Send a piece of the body."""

    def finish(self) -> object:
        """The body is complete."""

    def registerProducer(self, producer: Any, streaming: bool) -> object:
        """Pause ``producer`` while the client does not keep up, and stop it once the client is gone."""

    def unregisterProducer(self) -> object:
        """Control the producer no more."""

    def update_reading(self) -> object:
        """Read from the client, or pause it, as it can be taken by now."""


class StreamedAnswer(msgspec.Struct, frozen=True):
    """A response of unknown length with status 200. ``begin`` is called with the writer once its head was sent."""

    fields: Fields
    begin: Callable[[ResponseWriter], object]


class FullRequest(msgspec.Struct):
    """A request that was read completely, with its body.

    ``keep_alive``: the client and its version of HTTP allow another request on the connection.
    """

    head: Head
    body: bytes
    keep_alive: bool
    field: Callable[[bytes], bytes | None]
    """Returns the value of a header field by its name in lower case: the last one where the field is repeated."""
    peer: str | None = None
    """The address of the client, and the scheme (http or https). Set only where the site relays requests."""
    scheme: str = "http"
    size: int = 0
    """About the bytes that it takes in memory while it waits (`http1.pipeline`)."""
    connection: Any = None
    """The channel that has read it."""
    admitted: Any = None
    """What the site made of its head before the body was read (`http1.admission`)."""


FastPath = Callable[[FullRequest], Coroutine[Any, Any, Answer | StreamedAnswer] | None]
"""Returns a coroutine that serves the request without a ``twisted.web`` request, or None.

The coroutine raises nothing but `CancelledError`.
"""

_date: tuple[int, bytes] = (0, b"")
_heads: dict[tuple[int, bytes, bool], bytes] = {}  # the first lines of a head; valid during the second of `_date`


def render(answer: Answer, version: bytes, keep_alive: bool, head_only: bool = False) -> bytes:
    """The bytes of a response to a request of HTTP ``version``, with the fields in the order of ``twisted.web``.

    Without ``keep_alive`` the response announces the end of the connection. ``head_only`` leaves the body out, as an
    answer to HEAD must (RFC 9110, section 9.3.2).
    """
    pieces = [_head(answer.status, version, keep_alive)]
    if answer.passed_on:
        if answer.status != 204 and answer.length is not None:
            pieces.append(b"Content-Length: %d\r\n" % answer.length)
    elif answer.status == 204:
        pieces.append(b"Cache-Control: no-store\r\n")
    else:
        pieces += (b"Content-Type: ", answer.content_type, b"\r\nContent-Length: %d\r\n" % len(answer.body))
        pieces.append(b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n")
    for name, value in answer.fields:
        pieces += (name, b": ", value, b"\r\n")
    pieces += (b"\r\n", b"" if head_only else answer.body)
    return b"".join(pieces)


def render_head(answer: StreamedAnswer, version: bytes, keep_alive: bool) -> bytes:
    """The head of a response of unknown length: chunked, or (HTTP/1.0) ended by the end of the connection."""
    pieces = [_head(200, version, keep_alive)]
    for name, value in answer.fields:
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
    """The current time as a ``Date`` field has it (RFC 9110, section 5.6.7), formatted once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, datetimeToString(now))
        _heads.clear()
    return _date[1]
