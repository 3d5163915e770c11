# -*- test-case-name: tests.http1.test_upstream -*-
"""A response as it comes from a server: read with llhttp, as strictly and within the same bounds as a request.

A server behind a gateway is trusted with its own clients, not with the gateway: whatever two readers could understand
differently is refused here, before any of it is passed on (RFC 9112, section 6.3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import httptools

from openhqm.http1.rules import MOST_HEAD, MOST_HEADERS, MOST_LINE, Refusal

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class ResponseSink(Protocol):
    """Who gets a response: its head, pieces, and its completion; or a failure, before or after the head."""

    def responded(
        self, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> object:
        """The head of the final response. ``length`` of the body, None where it is not known. May raise `Refusal`."""

    def received(self, piece: bytes) -> object:
        """A piece of its body."""

    def completed(self) -> object:
        """The body is complete."""

    def failed(self, refusal: Refusal) -> object:
        """There will be no more of it: 502 for a server that is wrong, 504 for one that is late."""


class ResponseReader:
    """Reads one final response, past the interim ones before it (RFC 9110, section 15.2)."""

    def __init__(self, method: bytes, taker: ResponseSink) -> None:
        self.complete = False
        self.responded = False
        self.keep_alive = False
        self._method = method
        self._taker = taker
        self._until_close = False
        self._surplus = False
        self._size = 0
        self._parser = httptools.HttpResponseParser(self)
        self._start()

    def feed(self, data: bytes) -> None:
        """Read on. `Refusal`: it is no response, or no sound one."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise Refusal(502, "the upstream server changed the protocol, which nobody had asked for") from None
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
            if not self.complete:
                raise _refusal_in(error) from None
            self._surplus = True
        if not self.responded:
            self._size += len(data)
            if self._size > 2 * MOST_HEAD:
                raise Refusal(502, f"the head of the upstream server's answer is longer than {MOST_HEAD} bytes")
        if self._surplus:
            self.keep_alive = False  # RFC 9112, section 9.2: what was not asked for belongs to nobody

    def ended(self, cleanly: bool) -> None:
        """The connection is closed: for some responses this is how they end (RFC 9112, section 6.3, item 8)."""
        self.complete = self.complete or (self._until_close and cleanly)

    def _start(self) -> None:
        self._reason = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_size = 0

    # The parser

    def on_message_begin(self) -> None:
        if self.complete:
            self._surplus = True
        self._start()

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.responded:
            return  # a trailer: nobody downstream was told to expect one
        self._head_size += len(name) + len(value) + 4
        if len(name) + len(value) > MOST_LINE or self._head_size > MOST_HEAD or len(self._fields) >= MOST_HEADERS:
            raise Refusal(502, "the head of the upstream server's answer is too long")
        self._fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._parser.get_status_code()
        if self._parser.get_http_version() not in ("1.1", "1.0") or not 100 <= status <= 599 or status == 101:
            raise Refusal(502, "the answer of the upstream server is not HTTP/1.1")
        length, chunked = _framing(self._fields)
        if status < 200:
            if length is not None or chunked:
                raise Refusal(502, "the upstream server sent an interim answer with a body")
            return
        if _CONTROL.search(self._reason) is not None:
            raise Refusal(502, "the answer of the upstream server has a control character")
        self._until_close = length is None and not chunked
        # It says whether the connection stays; for HEAD the parser thinks of a body that ends with it.
        self.keep_alive = bool(self._parser.should_keep_alive())
        without_body = self._method == b"HEAD" or status in (204, 304)
        self._taker.responded(status, self._reason, self._fields, length)
        self.responded = True
        self.complete = without_body

    def on_body(self, piece: bytes) -> None:
        if self.complete:
            self._surplus = True
        else:
            self._taker.received(piece)

    def on_message_complete(self) -> None:
        self.complete = self.complete or self.responded


def _framing(fields: Sequence[tuple[bytes, bytes]]) -> tuple[int | None, bool]:
    """The length that is announced, and whether the body is chunked instead."""
    length: int | None = None
    chunked = False
    for name, value in fields:
        key = name.lower()
        if key == b"content-length":
            if length is not None or not value.isdigit() or len(value) > 18:
                raise Refusal(502, "the answer of the upstream server has a Content-Length that is not one number")
            length = int(value)
        elif key == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise Refusal(502, "the answer of the upstream server has a Transfer-Encoding other than chunked alone")
            chunked = True
    if chunked and length is not None:
        raise Refusal(502, "the answer of the upstream server has two lengths")
    return length, chunked


def _refusal_in(error: Exception) -> Refusal:
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    if isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
        raise cause  # a bug of ours
    return Refusal(502, "the answer of the upstream server is malformed")
