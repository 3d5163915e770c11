# -*- test-case-name: tests.http1.test_upstream -*-
"""Reads the response of an upstream server with llhttp, as strictly and within the same limits as a request.

The gateway does not trust the upstream server with the gateway's own clients. A response that two readers could
understand differently is refused before any of it is passed on (RFC 9112, section 6.3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import httptools
import msgspec

from openhqm.http1.head_cache import HeadCache
from openhqm.http1.rules import MOST_HEAD, MOST_HEADERS, MOST_LINE, Refusal

_TOO_LONG = f"the head of the response is longer than {MOST_HEAD} bytes, or has more than {MOST_HEADERS} fields"
_MALFORMED = "the response of the upstream server is malformed"
_UNASKED = "the upstream server switched to a protocol that the request had not asked for"
_OPENING = b"HTTP/"
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class TooLong(Refusal):
    """The head of a response is longer than its limits."""


class ResponseSink(Protocol):
    """Receives one response: its head, the pieces of its body and its end, or a failure before or after the head."""

    def responded(
        self, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> object:
        """The head of the final response. ``length`` is that of the body in bytes, or None where it is unknown.

        May raise `Refusal`: the response fails with it.
        """

    def received(self, piece: bytes) -> object:
        """A piece of the response's body."""

    def completed(self) -> object:
        """The response is complete."""

    def failed(self, refusal: Refusal) -> object:
        """The response will not be completed: 502 for an invalid response or a lost connection, 504 for a late one."""


class _Head(msgspec.Struct, frozen=True):
    """The head of a response whose length it announces, and that leaves its connection open."""

    status: int
    reason: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    length: int


_HEADS: HeadCache[_Head] = HeadCache(64)
"""A server's responses mostly have the same head within a second. What a head says does not depend on the server."""


class _NoSink:
    """Drops what is read after the request was given up."""

    def responded(
        self, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> None: ...

    def received(self, piece: bytes) -> None: ...

    def completed(self) -> None: ...

    def failed(self, refusal: Refusal) -> None: ...


_NONE = _NoSink()


class ResponseReader:
    """Reads the responses of one connection: of each the final one, without the interim ones before it (RFC 9110,
    section 15.2).

    ``complete`` and ``responded`` say whether the response, and its head, were read. ``keep_alive`` says whether the
    connection can carry another request. ``switched``: the server has agreed to the protocol that the request asked
    for. Then ``fields`` are those of its response, and ``rest`` is what has come behind it.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._ended = True  # the parser can read the next response: it has read the one before to its end
        self._sink: ResponseSink = _NONE
        self._reset()

    def begin(self, method: bytes, sink: ResponseSink, protocol: bytes | None = None) -> None:
        """Read the response to a request with ``method`` for ``sink``. ``protocol``: the one that it asked for."""
        self._reset()
        self._method, self._protocol = method, protocol
        self._sink = sink
        if not self._ended:
            self._parser = httptools.HttpResponseParser(self)
        self._ended = False

    def finish(self) -> None:
        """The sink gets nothing more, and is forgotten with what it holds."""
        self._sink = _NONE

    def _reset(self) -> None:
        self.complete = False
        self.responded = False
        self.keep_alive = False
        self.switched = False
        self.rest = b""
        self._method = b""
        self._protocol = None
        self._until_close = False
        self._surplus = False
        self._size = self._status = 0
        self._length: int | None = None
        self._opening = b""  # the first bytes of the response
        self._start()

    def feed(self, data: bytes) -> None:
        """Read ``data``. Raises `Refusal` (502) where the response is invalid."""
        whole = data if not self._opening and self._method != b"HEAD" else None
        if whole is not None and (found := _HEADS.find(whole)) is not None:
            self._read_at_once(*found)
            return
        if len(self._opening) < len(_OPENING):
            self._opening += data[: len(_OPENING) - len(self._opening)]
            if not _OPENING.startswith(self._opening):  # llhttp takes RTSP/ and ICE/, too, and skips empty lines
                raise Refusal(502, _MALFORMED)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self.switched:
                raise Refusal(502, _UNASKED) from None
            self.rest = data[upgrade.args[0] :]
            return
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
            if not self.complete:
                raise _refusal_in(error) from None
            self._surplus = True
        if not self.responded:
            self._size += len(data)
            if self._size > 2 * MOST_HEAD:
                raise TooLong(502, _TOO_LONG)
        if self._surplus:
            self.keep_alive = False  # RFC 9112, section 9.2: surplus bytes answer no request
        elif whole is not None and self._ended and self.keep_alive and self._length is not None:
            _HEADS.add(whole, _Head(self._status, self._reason, tuple(self.fields), self._length))

    def _read_at_once(self, head: _Head, body: bytes) -> None:
        """What the parser would do with a whole response that has this head: it has read the same bytes before."""
        self._opening = _OPENING
        self.keep_alive = self._ended = True
        self._sink.responded(head.status, head.reason, head.fields, head.length)
        self.responded = True
        if body:
            self._sink.received(body)
        self.complete = True

    def ended(self, cleanly: bool) -> None:
        """The connection was closed, which ends a response without a length (RFC 9112, section 6.3, item 8)."""
        self.complete = self.complete or (self._until_close and cleanly)

    def _start(self) -> None:
        self._reason = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self._head_size = 0

    # Called by the parser

    def on_message_begin(self) -> None:
        if self.complete:
            self._surplus = True
        self._start()

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.responded:
            return  # a trailer: it is dropped, because the client was not told to expect one
        self._head_size += len(name) + len(value) + 4
        if len(name) + len(value) > MOST_LINE or self._head_size > MOST_HEAD or len(self.fields) >= MOST_HEADERS:
            raise TooLong(502, _TOO_LONG)
        self.fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._parser.get_status_code()
        if self._parser.get_http_version() not in ("1.1", "1.0") or not 100 <= status <= 599:
            raise Refusal(502, "the response of the upstream server is not HTTP/1.1")
        if status == 101:
            self._check_switch()
            return
        length, chunked = _framing(self.fields, self._parser.get_http_version())
        if status < 200:
            if length is not None or chunked:
                raise Refusal(502, "the upstream server sent an interim response with a body")
            return
        if _CONTROL.search(self._reason) is not None:
            raise Refusal(502, "the response of the upstream server has a control character in its status line")
        self._status, self._length = status, length
        self._until_close = length is None and not chunked
        # No for a response to HEAD without a length: the parser expects a body that ends with the connection.
        self.keep_alive = bool(self._parser.should_keep_alive())
        without_body = self._method == b"HEAD" or status in (204, 304)
        self._sink.responded(status, self._reason, self.fields, length)
        self.responded = True
        self.complete = without_body

    def _check_switch(self) -> None:
        upgrades = [value for name, value in self.fields if name.lower() == b"upgrade"]
        if self._protocol is None or [value.lower() for value in upgrades] != [self._protocol]:
            raise Refusal(502, _UNASKED)
        if _framing(self.fields, self._parser.get_http_version()) != (None, False):
            raise Refusal(502, _MALFORMED)  # RFC 9110, section 8.6, and RFC 9112, section 6.1
        self.switched = bool(self._parser.should_upgrade())
        if not self.switched:
            raise Refusal(502, _MALFORMED)  # without Connection: upgrade

    def on_body(self, piece: bytes) -> None:
        if self.complete:
            self._surplus = True
        else:
            self._sink.received(piece)

    def on_message_complete(self) -> None:
        self.complete = self.complete or self.responded
        self._ended = self.responded and not self._surplus


def _framing(fields: Sequence[tuple[bytes, bytes]], version: str) -> tuple[int | None, bool]:
    """The announced length of the body, and whether the body is chunked instead."""
    length: int | None = None
    chunked = False
    for name, value in fields:
        key = name.lower()
        if key == b"content-length":
            if length is not None or not value.isdigit() or len(value) > 18:
                raise Refusal(502, "the upstream server's response has a Content-Length that is not one number")
            length = int(value)
        elif key == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise Refusal(502, "the upstream server's response has a Transfer-Encoding other than chunked alone")
            if version == "1.0":  # RFC 9112, section 6.1: the framing is faulty
                raise Refusal(502, "the upstream server's response has a Transfer-Encoding in HTTP/1.0")
            chunked = True
    if chunked and length is not None:
        raise Refusal(502, "the upstream server's response has both Content-Length and Transfer-Encoding")
    return length, chunked


def _refusal_in(error: Exception) -> Refusal:
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    if isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
        raise cause  # a bug in the gateway
    return Refusal(502, _MALFORMED)
