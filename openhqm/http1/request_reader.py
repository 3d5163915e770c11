# -*- test-case-name: tests.http1.test_channel -*-
"""Reads the requests of one connection with llhttp, within limits of size and with absolute deadlines.

A request is collected and handed on when it is complete. Where the site selects a sink for its head, the request is
relayed instead, while its body is still being read.

llhttp has a table of methods, and refuses all others. A site that relays requests takes any method: there the parser
gets one request at a time, and reads ``POST`` instead of a method that it may not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httptools

from openhqm.http1.admission import admit_head
from openhqm.http1.chunks import ChunkLines, chunks_begin
from openhqm.http1.messages import FullRequest
from openhqm.http1.pass_through import Relay
from openhqm.http1.pipeline import MOST_PIPELINED
from openhqm.http1.rules import (
    MALFORMED,
    METHODS,
    MOST_HEAD,
    MOST_HEADERS,
    MOST_LINE,
    MOST_TARGET,
    REFUSED_METHODS,
    Head,
    Refusal,
    check_head,
)

HEAD_SECONDS = 10.0  # for the head of a request, from its first byte
LEAST_BYTES_PER_SECOND = 1024  # of a body
MOST_FRAMING = 64 * 1024  # bytes of chunk lines and trailer beyond the bytes of the body
MOST_METHOD = 64  # bytes of a method that is not in the parser's table
_METHOD = re.compile(rb"([!#$%%&'*+\-.^_`|~0-9A-Za-z]{1,%d})(?:( )|\Z)" % MOST_METHOD)
_PARSED = REFUSED_METHODS.union(METHODS)  # methods that the parser reads itself
SHORTEST = 18  # bytes of the shortest request, GET / HTTP/1.0


class RequestReader:
    """Reads requests, and calls ``on_request`` with each: a complete request, or a relay whose body is still to come.

    ``send_continue`` is called where a client waits for ``100 Continue`` before it sends a body that is collected.

    While ``full()``, no further request is read: what has come waits in ``unread`` as it came, for `take_unread`. A
    read of 64 KiB may hold thousands of requests, each of which would take many times its bytes.

    ``due`` is the time, in seconds of the site's clock, at which the connection has been silent or slow for too long.
    ``began_at`` is when the first byte of the request that is being read came, or None between two requests. ``relay``
    is the relay whose body is being read, or None.
    """

    def __init__(
        self,
        channel: Any,
        on_request: Callable[[FullRequest | Relay], object],
        send_continue: Callable[[], object],
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        self.due = float("inf")
        self.relay: Relay | None = None
        self._channel = channel
        self._site = channel.factory
        self._on_request = on_request
        self._send_continue = send_continue
        self._full = full
        self.unread = b""
        self._parser: Any
        self._between = True  # the parser is between two requests, so that a request may bypass it
        self._last_head: Head | None = None  # of the last request that the current read completed
        self._paused_at: float | None = None  # since when the body is not read, because its sink is paused
        self._chunk_lines: ChunkLines | None = None  # of the body that is being read
        self._admitted: Any = None  # see `FullRequest.admitted`
        self._read = b""  # the bytes that are being parsed,
        self._held = b""  # the beginning of a method, until it can be told whether the parser knows it
        self._method: bytes | None = None  # of the request that is being read, where the parser gets another one
        self._earlier: list[bytes] = []  # the earlier reads of a head that is not complete,
        self._start = 0  # and the index in both together at which the first request of this read begins
        self._new_parser()

    def feed(self, data: bytes) -> None:
        """Read ``data``. Raises `Refusal`: no further request can be read from this connection."""
        if self.unread:
            self.unread += data
            return
        between = self._between and self.began_at is None
        if between and self._read_cached(data):
            return
        whole, self._last_head = data, None
        while data:
            if self._full():
                self.unread = data
                break
            if len(data) < SHORTEST * MOST_PIPELINED:
                data = self._feed(data)
                continue
            end = _end_of_some(data)
            rest = self._feed(data[:end])
            data = rest + data[end:] if rest else data[end:]
        self._read = b""  # an idle connection keeps no bytes
        head, self._last_head = self._last_head, None  # an idle connection, and that of a stream, keeps none
        if between and self._between and self.began_at is None and head is not None and not head.expects_continue:
            self._site.head_cache.add(whole, head)

    def take_unread(self) -> bytes:
        """The bytes that wait, which are to be given to `feed` again."""
        unread, self.unread = self.unread, b""
        return unread

    @property
    def between(self) -> bool:
        """Whether nothing of a next request has come."""
        return self.began_at is None and not self.unread

    def _read_cached(self, data: bytes) -> bool:
        """Hand on ``data`` without the parser, where it is one complete request whose head is cached."""
        site = self._site
        if site.select_sink is not None or site.buffered + len(data) > site.most_buffered:
            return False
        found = site.head_cache.find(data)
        if found is None:
            return False
        head, body = found
        self.due = float("inf")
        self._on_request(FullRequest(head, body, True, head.field, connection=self._channel))
        return True

    def _feed(self, data: bytes) -> bytes:
        """Give the parser ``data``, and return the bytes that it has not read."""
        if self._site.select_sink is not None and self._head is None:
            data, rest = self._split_head(data)
            if not data:
                return rest
        else:
            rest = b""
        if self._head is not None:
            if self._chunk_lines is not None:
                self._start = self._chunk_lines.feed(data)
            elif self._head.length is not None:
                self._start = self._head.length - self._body_size
            if self._site.select_sink is not None:
                data, rest = data[: self._start], data[self._start :]
        elif not self._earlier:
            self._start = 0
        self._read = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._earlier.clear()
            self._ignore_upgrade()
            return data[upgrade.args[0] :] + rest
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
            raise _refusal_in(error) from None
        self._raw_size += len(data)
        self._check_progress()
        return rest

    def _split_head(self, data: bytes) -> tuple[bytes, bytes]:
        """The bytes of a head for the parser, up to its end, and those behind it.

        There are none for the parser while the method is not complete.
        """
        if self.began_at is None or self._held:
            data, self._held = self._held + data, b""
            line = data.lstrip(b"\r\n")  # RFC 9112, section 2.2: empty lines before a request are ignored
            match = _METHOD.match(line)
            if match is not None and match[2] is None and len(line) < MOST_METHOD:
                self.on_message_begin()  # its time runs
                self._held = line
                return b"", b""
            if match is not None and match[2] is not None and match[1] not in _PARSED:
                self._method = match[1]
                data = b"POST" + line[match.end(1) :]
        before = b"".join(self._earlier[-3:])[-3:]
        end = (before + data).find(b"\r\n\r\n")
        if end < 0:
            return data, b""
        end += 4 - len(before)
        return data[:end], data[end:]

    def _ignore_upgrade(self) -> None:
        """Go on behind the head of a request that asks for an upgrade (RFC 9110, section 7.8: it may be ignored).

        The parser has stopped behind the head. It must not take the body that the head announced for the next request:
        a new parser is fed a head that announces the same body, without the upgrade.
        """
        head, keep_alive = self._head, self._parser.should_keep_alive()
        if head is None:
            self._new_parser()
            return
        self._parser = httptools.HttpRequestParser(self)
        if head.length is None:
            self._chunk_lines = self._make_chunk_lines()
        length = b"Transfer-Encoding: chunked" if head.length is None else b"Content-Length: %d" % head.length
        connection = b"keep-alive" if keep_alive else b"close"
        self._parser.feed_data(b"POST / HTTP/1.1\r\nHost:\r\n%b\r\nConnection: %b\r\n\r\n" % (length, connection))

    @property
    def collected(self) -> int:
        """The bytes read so far of a body that is being collected."""
        return self._body_size if self.relay is None else 0

    def empty(self) -> bool:
        """Whether it has no bytes of a body, no unread ones and no relay, and is not paused."""
        return self.relay is None and not self._body_size and not self.unread and self._paused_at is None

    def discard(self) -> None:
        """Forget the request that is being read: nothing more of it is read."""
        self._held = self.unread = b""
        self._start_message()
        self.due = float("inf")

    def pause(self) -> None:
        """The request is not read for now, so its deadline stands still: the client is not to blame."""
        if self._paused_at is None and self.began_at is not None:
            self._paused_at = self._site.clock.seconds()
            self.due = float("inf")

    def resume(self) -> None:
        """The request is read again."""
        paused_at, self._paused_at = self._paused_at, None
        if paused_at is not None and self.began_at is not None:
            self.began_at += self._site.clock.seconds() - paused_at
            self.due = self._body_due()

    def postpone(self, seconds: float) -> None:
        """``seconds`` do not count for the client: all deadlines are so much later."""
        self.due += seconds
        if self.began_at is not None:
            self.began_at += seconds
        if self._paused_at is not None:
            self._paused_at += seconds

    def _new_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._start_message()

    def _start_message(self) -> None:
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: Head | None = None
        self._admitted = self._chunk_lines = None
        self._body: list[bytes] = []
        self._body_size = 0
        self._paused_at = None
        self._head_size = self._raw_size = 0
        self.began_at: float | None = None

    # Called by the parser

    def on_message_begin(self) -> None:
        if self.began_at is not None:
            return  # its method was held, or it is the head that `_ignore_upgrade` made up
        self._start_message()
        self.began_at = self._site.clock.seconds()
        self.due = self.began_at + HEAD_SECONDS

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > MOST_TARGET:
            raise Refusal(414, f"the request target is longer than {MOST_TARGET} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None:
            return  # a trailer, or the head that `_ignore_upgrade` made up: ignored
        if len(name) + len(value) > MOST_LINE:
            raise Refusal(431, f"a header line is longer than {MOST_LINE} bytes")
        if len(self._headers) >= MOST_HEADERS:
            raise Refusal(431, f"the request has more than {MOST_HEADERS} header lines")
        self._head_size += len(name) + len(value) + 4
        if self._head_size > MOST_HEAD:
            raise Refusal(431, f"the request head is longer than {MOST_HEAD} bytes")
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self._head is not None:
            return
        method, self._method = self._method or self._parser.get_method(), None
        version = self._parser.get_http_version()
        head = self._head = check_head(method, self._url, version, self._headers, self._site.is_own)
        if head.length != 0:
            self.due = self._body_due()
        if self._site.select_sink is None or not self._begin_relay(head):
            self._admitted = admit_head(self._site, head, self._channel)
            if head.length != 0 and head.expects_continue:
                self._send_continue()
        if head.length is None and not self._parser.should_upgrade():
            self._begin_chunks()

    def _begin_chunks(self) -> None:
        """Find where in the current read the body begins, and check the chunk lines from there on.

        The parser does not report the index at which it is.
        """
        earlier = b"".join(self._earlier)
        begin = chunks_begin(earlier + self._read, self._start) - len(earlier)
        self._chunk_lines = self._make_chunk_lines()
        self._start = self._chunk_lines.feed(self._read, begin)
        self._earlier.clear()

    def _make_chunk_lines(self) -> ChunkLines:
        return ChunkLines(self._site.most_body if self.relay is None else None)

    def _begin_relay(self, head: Head) -> bool:
        sink = self._site.select_sink(head)
        if sink is not None:
            self.relay = Relay(self._channel, head, self._keep_alive(head), sink)
            self._on_request(self.relay)
        return sink is not None

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self.relay is not None:
            self.relay.feed(body)
            return
        if self._body_size > self._site.most_body:
            raise Refusal(413, f"the request body is longer than {self._site.most_body} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        head, relay = self._head, self.relay
        assert head is not None
        if head.length != 0 and self._parser.should_upgrade():
            return  # the parser stops behind the head: `_ignore_upgrade` goes on with the body
        if self._chunk_lines is not None and not self._chunk_lines.ended:
            raise Refusal(400, MALFORMED)  # the parser sees an end that the chunk lines do not show
        self._between = self._keep_alive(head)
        self._last_head = head
        if relay is None:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            request = FullRequest(head, body, self._between, head.field, connection=self._channel)
            request.admitted = self._admitted
            if self._site.select_sink is not None:
                request.peer = getattr(self._channel.getPeer(), "host", None)
                request.scheme = "https" if self._channel.isSecure() else "http"
            self._on_request(request)
        self._start_message()
        self.due = float("inf")
        if relay is not None:
            self.relay = None
            relay.end_body()

    def _keep_alive(self, head: Head) -> bool:
        # An HTTP/1.0 client recognises the end of a response of unknown length by the end of the connection only.
        return bool(self._parser.should_keep_alive()) and head.version == b"HTTP/1.1"

    def _check_progress(self) -> None:
        """After each read, enforce the limits for heads, for framing and for slow bodies.

        The parser does not report the line it is in, nor the framing of a body, so the bytes it was fed are counted.
        """
        if self.began_at is not None and self._head is None:
            self._earlier.append(self._read)
        elif self._earlier:
            self._earlier.clear()
        if self.began_at is None:
            return
        if self._head is None:
            if self._raw_size > 2 * MOST_HEAD:
                raise Refusal(431, f"the request head is longer than {MOST_HEAD} bytes")
        else:
            if self._raw_size > MOST_HEAD + MOST_FRAMING + 2 * self._body_size:
                raise Refusal(400, "the request body has more bytes of framing than of content")
            if self._paused_at is None:
                self.due = self._body_due()

    def _body_due(self) -> float:
        assert self.began_at is not None
        return self.began_at + HEAD_SECONDS + self._body_size / LEAST_BYTES_PER_SECOND


def _end_of_some(data: bytes) -> int:
    """An index in ``data`` up to which at most `MOST_PIPELINED` requests end."""
    end = 0
    for _ in range(MOST_PIPELINED):
        found = data.find(b"\r\n\r\n", end)
        if found < 0:
            return len(data)
        end = found + 4
    return end


def _refusal_in(error: Exception) -> Refusal:
    """The refusal that a callback raised inside the parser, or the one for an error that the parser found."""
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    if isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
        raise cause  # a bug in the gateway or in a sink: the request is not to blame
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Refusal(501, "the request method is unknown")
    return Refusal(400, MALFORMED)
