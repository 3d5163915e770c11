# -*- test-case-name: tests.http1.test_chunks -*-
"""The lines between the chunks of a body (RFC 9112, section 7.1), which the parser keeps to itself.

They are read beside the parser, from the same bytes, for what it does not bound: how large a chunk is announced to be,
and how long its extensions are. A line is judged once it is whole, and at least as strictly as the parser does it, so
that it makes no difference where the reads cut it.
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
_NEXT = re.compile(rb"\r\n" + _LINE)  # the end of the chunk before it is a part of it
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_HEAD = re.compile(rb"(?:\r\n)*(?s:.*?)\r\n\r\n")


class ChunkLines:
    """The lines of one body, of at most ``most`` bytes, or of any length."""

    def __init__(self, most: int | None) -> None:
        self.ended = False
        self._most = most
        self._total = 0
        self._left = 0  # of the chunk that is coming
        self._line = _FIRST
        self._held = b""  # a line, or the end of a trailer, that has come in part
        self._trailer = False

    def feed(self, data: bytes, place: int = 0) -> int:
        """Read on in ``data`` from ``place``, and say where the body has ended; or else the length of ``data``.

        `Refusal`: 400 for a line that is not one, 413 for more than there may be.
        """
        if self.ended:
            raise Refusal(400, MALFORMED)  # the parser goes on where we have seen the end
        while place < len(data):
            if self._trailer:
                return self._pass_over_trailer(data, place)
            step = min(self._left, len(data) - place)
            if step:
                self._left -= step
                place += step
                continue
            text = self._held + data[place : place + MOST_CHUNK_LINE]
            match = self._line.match(text)
            if match is None:
                if len(text) >= MOST_CHUNK_LINE or text.count(b"\n") > (self._line is _NEXT):
                    raise Refusal(400, MALFORMED)
                self._held = text
                return len(data)
            place += match.end() - len(self._held)
            self._begin_chunk(int(match[1], 16))
        return place

    def _begin_chunk(self, size: int) -> None:
        self._left = size
        self._total += size
        if self._most is not None and self._total > self._most:
            raise Refusal(413, f"the body is longer than {self._most} bytes")
        self._line = _NEXT
        self._trailer = size == 0
        self._held = b"\r\n" if self._trailer else b""

    def _pass_over_trailer(self, data: bytes, place: int) -> int:
        text = self._held + data[place:]
        end = text.find(b"\r\n\r\n")
        if end < 0:
            self._held = text[-3:]
            return len(data)
        self.ended = True
        return place + end + 4 - len(self._held)


def chunks_begin(data: bytes, place: int) -> int:
    """Where the first chunked body begins in ``data``, which has whole requests from ``place`` on, all of them sound.

    Only looked for once the parser has found such a request: others do not pay for it.
    """
    while (head := _HEAD.match(data, place)) is not None:
        place = head.end()
        if _CHUNKED.search(head[0]) is not None:
            return place
        length = _LENGTH.search(head[0])
        if length is not None:
            place += int(length[1])
    raise Refusal(400, MALFORMED)
