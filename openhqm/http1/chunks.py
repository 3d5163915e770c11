# -*- test-case-name: tests.http1.test_chunks -*-
"""The lines between the chunks of a body (RFC 9112, section 7.1), which llhttp does not report.

`ChunkLines` reads them from the same bytes as the parser, to enforce two limits that the parser does not have: the
announced size of the chunks, and the length of chunk extensions. A line is checked once it is complete, and at least
as strictly as the parser checks it, so that the result does not depend on where reads split the bytes.
"""

from __future__ import annotations

import re

from openhqm.http1.rules import MALFORMED, Refusal

MOST_EXTENSIONS = 256
MOST_CHUNK_LINE = 2 + 16 + MOST_EXTENSIONS + 2

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_EXTENSION = rb';%b(?:=(?:%b|"(?:[\t !#-\[\]-~]|\\[\t -~])*"))?' % (_TOKEN, _TOKEN)
_LINE = rb"([0-9A-Fa-f]{1,16})(?=[^\r\n]{0,%d}\r\n)(?:%b)*\r\n" % (MOST_EXTENSIONS, _EXTENSION)
_FIRST = re.compile(_LINE)
_NEXT = re.compile(rb"\r\n" + _LINE)  # begins with the line end behind the previous chunk's data
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_HEAD = re.compile(rb"(?:\r\n)*(?s:.*?)\r\n\r\n")


class ChunkLines:
    """Checks the chunk lines of one body of at most ``most`` bytes; None: of any length."""

    def __init__(self, most: int | None) -> None:
        self.ended = False
        """Whether the body and its trailer are complete."""
        self._most = most
        self._total = 0
        self._left = 0  # bytes of the current chunk that have not come yet
        self._line = _FIRST
        self._partial = b""  # the beginning of a chunk line, or of the end of the trailer
        self._trailer = False

    def feed(self, data: bytes, start: int = 0) -> int:
        """Read ``data`` from ``start`` on. Returns the index behind the end of the body, or the length of ``data``.

        Raises `Refusal`: 400 for a malformed chunk line, 413 where the announced sizes exceed the limit.
        """
        if self.ended:
            raise Refusal(400, MALFORMED)  # the parser reads on behind the end that was seen here
        while start < len(data):
            if self._trailer:
                return self._skip_trailer(data, start)
            step = min(self._left, len(data) - start)
            if step:
                self._left -= step
                start += step
                continue
            text = self._partial + data[start : start + MOST_CHUNK_LINE]
            match = self._line.match(text)
            if match is None:
                if len(text) >= MOST_CHUNK_LINE or text.count(b"\n") > (self._line is _NEXT):
                    raise Refusal(400, MALFORMED)
                self._partial = text
                return len(data)
            start += match.end() - len(self._partial)
            self._begin_chunk(int(match[1], 16))
        return start

    def _begin_chunk(self, size: int) -> None:
        self._left = size
        self._total += size
        if self._most is not None and self._total > self._most:
            raise Refusal(413, f"the request body is longer than {self._most} bytes")
        self._line = _NEXT
        self._trailer = size == 0
        self._partial = b"\r\n" if self._trailer else b""

    def _skip_trailer(self, data: bytes, start: int) -> int:
        text = self._partial + data[start:]
        end = text.find(b"\r\n\r\n")
        if end < 0:
            self._partial = text[-3:]
            return len(data)
        self.ended = True
        return start + end + 4 - len(self._partial)


def chunks_begin(data: bytes, start: int) -> int:
    """The index in ``data`` at which the first chunked body begins.

    ``data`` holds complete and valid requests from ``start`` on. The function is called only once the parser has found
    a chunked request, so that other requests do not pay for the search. Raises `Refusal` (400) where there is none.
    """
    while (head := _HEAD.match(data, start)) is not None:
        start = head.end()
        if _CHUNKED.search(head[0]) is not None:
            return start
        length = _LENGTH.search(head[0])
        if length is not None:
            start += int(length[1])
    raise Refusal(400, MALFORMED)
