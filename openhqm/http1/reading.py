# -*- test-case-name: tests.http1.test_channel -*-
"""What comes in on one connection, made into requests: bounded in size, and due at an absolute time.

A request is collected and handed on whole, or it is let through from its head on, where a passage takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httptools

from openhqm.http1.chunks import ChunkLines, chunks_begin
from openhqm.http1.messages import Message
from openhqm.http1.pass_through import Relay
from openhqm.http1.rules import (
    MALFORMED,
    MOST_HEAD,
    MOST_HEADERS,
    MOST_LINE,
    MOST_TARGET,
    Head,
    Refusal,
    check_head,
)

HEAD_SECONDS = 10.0
LEAST_BYTES_PER_SECOND = 1024
MOST_FRAMING = 64 * 1024
BUSY = "there are as many bodies under way as may be; come again"


class Reader:
    """Collects each request for ``took``, or lets it through.

    ``due`` is when something must have come; ``began_at`` tells when the request that is coming in began, or None
    between two; ``inflow`` is the one whose body is let through just now, or None.
    """

    def __init__(self, channel: Any, took: Callable[[Message | Relay], object], go_ahead: Callable[[], object]) -> None:
        self.due = float("inf")
        self.inflow: Relay | None = None
        self._channel = channel
        self._site = channel.factory
        self._took = took
        self._go_ahead = go_ahead
        self._parser: Any
        self._between = True  # the parser waits for the first byte of a request, and may be passed by
        self._read_last: Head | None = None  # of what was read now: of the last request that was complete
        self._held_at: float | None = None  # since when a body is not read on
        self._lines: ChunkLines | None = None  # of the body that is coming
        self._read = b""  # what is being read,
        self._earlier: list[bytes] = []  # what came before it of a head that is not complete,
        self._place = 0  # and where in all that the first request begins that was not there before
        self._new_parser()

    def feed(self, data: bytes) -> None:
        """Read on. `Refusal`: nothing behind it can be understood."""
        between = self._between and self.began_at is None
        if between and self._took_known(data):
            return
        whole, self._read_last = data, None
        while data:
            data = self._feed(data)
        self._read = b""  # an idle connection keeps nothing
        if between and self._between and self.began_at is None and self._read_last is not None:
            self._site.known.note(whole, self._read_last)

    def _took_known(self, data: bytes) -> bool:
        """Whether this is one whole request with a head that was read before: then the parser need not see it."""
        site = self._site
        if site.passage is not None or site.buffered + len(data) > site.most_buffered:
            return False
        known = site.known.find(data)
        if known is None:
            return False
        head, body = known
        self.due = float("inf")
        self._took(Message(head, body, True, head.field))
        return True

    def _feed(self, data: bytes) -> bytes:
        self._read = data
        if self._head is not None:
            if self._lines is not None:
                self._place = self._lines.feed(data)
            elif self._head.length is not None:
                self._place = self._head.length - self._body_size
        elif not self._earlier:
            self._place = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._earlier.clear()
            self._pass_over_upgrade()
            return data[upgrade.args[0] :]
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
            raise _refusal_in(error) from None
        self._raw_size += len(data)
        self._check_progress()
        return b""

    def _pass_over_upgrade(self) -> None:
        """No upgrade is offered here, so it is ignored (RFC 9110, section 7.8), and what follows is parsed anew.

        The parser has stopped behind the head. A body that the head announced must not be taken for the next
        request: the new parser begins with a head of the same length and without the upgrade.
        """
        head, keep_alive = self._head, self._parser.should_keep_alive()
        if head is None:
            self._new_parser()
            return
        self._parser = httptools.HttpRequestParser(self)
        if head.length is None:
            self._lines = self._chunk_lines()
        length = b"Transfer-Encoding: chunked" if head.length is None else b"Content-Length: %d" % head.length
        connection = b"keep-alive" if keep_alive else b"close"
        self._parser.feed_data(b"POST / HTTP/1.1\r\nHost:\r\n%b\r\nConnection: %b\r\n\r\n" % (length, connection))

    @property
    def collected(self) -> int:
        """The bytes that have come of a body that is being collected."""
        return self._body_size if self.inflow is None else 0

    def drop(self) -> None:
        """Nothing more of it will be read."""
        self._start_message()
        self.due = float("inf")

    def hold(self) -> None:
        """A body is not read on: its time stands still, for whoever sends it is not to blame."""
        if self._held_at is None:
            self._held_at = self._site.clock.seconds()
            self.due = float("inf")

    def go_on(self) -> None:
        """It is read on."""
        held_at, self._held_at = self._held_at, None
        if held_at is not None and self.began_at is not None:
            self.began_at += self._site.clock.seconds() - held_at
            self.due = self._body_due()

    def _new_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._start_message()

    def _start_message(self) -> None:
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: Head | None = None
        self._lines = None
        self._body: list[bytes] = []
        self._body_size = 0
        self._held_at = None
        self._head_size = self._raw_size = 0
        self.began_at: float | None = None

    # The parser

    def on_message_begin(self) -> None:
        if self._head is not None:
            return  # the body of a request whose head was read before: see `_pass_over_upgrade`
        self._start_message()
        self.began_at = self._site.clock.seconds()
        self.due = self.began_at + HEAD_SECONDS

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > MOST_TARGET:
            raise Refusal(414, f"the target is longer than {MOST_TARGET} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None:
            return  # a trailer, or what was read before: read past, within the bounds of framing
        if len(name) + len(value) > MOST_LINE:
            raise Refusal(431, f"a header line is longer than {MOST_LINE} bytes")
        if len(self._headers) >= MOST_HEADERS:
            raise Refusal(431, f"there are more than {MOST_HEADERS} header lines")
        self._head_size += len(name) + len(value) + 4
        if self._head_size > MOST_HEAD:
            raise Refusal(431, f"the header is longer than {MOST_HEAD} bytes")
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self._head is not None:
            return
        method, version = self._parser.get_method(), self._parser.get_http_version()
        head = self._head = check_head(method, self._url, version, self._headers)
        if head.length != 0:
            self.due = self._body_due()
        if self._site.passage is None or not self._let_through(head):
            if head.length is not None and head.length > self._site.most_body:
                raise Refusal(413, f"the body is longer than {self._site.most_body} bytes")
            if head.length and self._site.buffered + head.length > self._site.most_buffered:
                raise Refusal(503, BUSY)
            if head.length != 0 and head.expects_continue:
                self._go_ahead()
        if head.length is None and not self._parser.should_upgrade():
            self._begin_chunks()

    def _begin_chunks(self) -> None:
        """Read the lines beside the parser: it is behind the head, and has the whole of what was read."""
        earlier = b"".join(self._earlier)
        begin = chunks_begin(earlier + self._read, self._place) - len(earlier)
        self._lines = self._chunk_lines()
        self._place = self._lines.feed(self._read, begin)
        self._earlier.clear()

    def _chunk_lines(self) -> ChunkLines:
        return ChunkLines(self._site.most_body if self.inflow is None else None)

    def _let_through(self, head: Head) -> bool:
        through = self._site.passage(head)
        if through is not None:
            self.inflow = Relay(self._channel, head, self._keep_alive(head), through)
            self._took(self.inflow)
        return through is not None

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self.inflow is not None:
            self.inflow.feed(body)
            return
        if self._body_size > self._site.most_body:
            raise Refusal(413, f"the body is longer than {self._site.most_body} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        head, inflow = self._head, self.inflow
        assert head is not None
        if head.length != 0 and self._parser.should_upgrade():
            return  # the parser has left the body out
        if self._lines is not None and not self._lines.ended:
            raise Refusal(400, MALFORMED)  # the parser sees an end where there is none
        self._between = self._keep_alive(head)
        self._read_last = head
        if inflow is None:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            message = Message(head, body, self._between, head.field)
            if self._site.passage is not None:
                message.peer = getattr(self._channel.getPeer(), "host", None)
                message.scheme = "https" if self._channel.isSecure() else "http"
            self._took(message)
        self._start_message()
        self.due = float("inf")
        if inflow is not None:
            self.inflow = None
            inflow.end()

    def _keep_alive(self, head: Head) -> bool:
        # A peer that speaks HTTP/1.0 cannot tell the end of a stream but by the end of the connection.
        return bool(self._parser.should_keep_alive()) and head.version == b"HTTP/1.1"

    def _check_progress(self) -> None:
        """After each read: a line that never ends, a body that is all framing, a body that drips.

        What the parser has kept to itself can only be told from how much it was given.
        """
        if self.began_at is not None and self._head is None:
            self._earlier.append(self._read)
        elif self._earlier:
            self._earlier.clear()
        if self.began_at is None:
            return
        if self._head is None:
            if self._raw_size > 2 * MOST_HEAD:
                raise Refusal(431, f"the header is longer than {MOST_HEAD} bytes")
        else:
            if self._raw_size > MOST_HEAD + MOST_FRAMING + 2 * self._body_size:
                raise Refusal(400, "the body is more framing than body")
            if self._held_at is None:
                self.due = self._body_due()

    def _body_due(self) -> float:
        assert self.began_at is not None
        return self.began_at + HEAD_SECONDS + self._body_size / LEAST_BYTES_PER_SECOND


def _refusal_in(error: Exception) -> Refusal:
    """The refusal that one of our callbacks raised within the parser, or what the parser found by itself."""
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    if isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
        raise cause  # a bug of ours, or of whoever takes a body: the request is not to blame
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Refusal(501, "this method is not known")
    return Refusal(400, MALFORMED)
