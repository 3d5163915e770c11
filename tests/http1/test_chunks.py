"""The lines between chunks (RFC 9112, section 7.1), wherever reads split them."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.chunks import MOST_EXTENSIONS, ChunkLines, chunks_begin
from openhqm.http1.rules import Refusal
from tests import hypothesis_profile  # noqa: F401

CHUNK = st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([b"", b";a", b";a=b", b';a="b c"', b";a;b=c"]))


def encode_body(chunks: list[tuple[bytes, bytes]], trailer: bytes) -> bytes:
    """A chunked body with these chunks, each with its extensions, and this trailer."""
    lines = b"".join(b"%x%b\r\n%b\r\n" % (len(data), extension, data) for data, extension in chunks)
    return lines + b"0\r\n" + trailer + b"\r\n"


class ChunkLinesTests(SynchronousTestCase):
    """`ChunkLines`"""

    def refused(self, data: bytes, most: int | None = 100) -> int:
        error: Any = self.assertRaises(Refusal, ChunkLines(most).feed, data)
        return int(error.status)

    @given(st.lists(CHUNK, max_size=5), st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC:\r\n"]), st.data())
    def test_where_it_ends(self, chunks: list[tuple[bytes, bytes]], trailer: bytes, data: Any) -> None:
        """The body ends behind its trailer, whatever bytes are in the chunks and behind the body."""
        body = encode_body(chunks, trailer)
        text = body + data.draw(st.binary(max_size=5))
        lines, start = ChunkLines(1000), 0
        while not lines.ended:
            step = data.draw(st.integers(1, len(text)))
            end = lines.feed(text[start : start + step])
            self.assertEqual(lines.ended, start + step >= len(body))
            self.assertEqual(end, min(len(body) - start, len(text[start : start + step])))
            start += step

    @given(st.lists(CHUNK, max_size=5), st.integers(0, 400), st.binary(max_size=4), st.data())
    def test_cut_anywhere(self, chunks: list[tuple[bytes, bytes]], start: int, noise: bytes, data: Any) -> None:
        """A body that is refused as a whole is refused in pieces, with the same status."""
        body = encode_body(chunks, b"")
        start %= len(body)
        body = body[:start] + noise + body[start:]

        def read(cut: int) -> object:
            lines = ChunkLines(100)
            try:
                for piece in (body[:cut], body[cut:]):
                    if not lines.ended:
                        lines.feed(piece)
            except Refusal as refusal:
                return refusal.status
            return lines.ended

        self.assertEqual(read(data.draw(st.integers(0, len(body)))), read(0))

    def test_sizes(self) -> None:
        """A chunk is refused by its announced size, alone or together with those before it."""
        self.assertEqual(self.refused(b"65\r\n"), 413)
        self.assertEqual(self.refused(b"3c\r\n" + b"a" * 60 + b"\r\n29\r\n"), 413)
        ChunkLines(100).feed(b"3c\r\n" + b"a" * 60 + b"\r\n28\r\n")
        ChunkLines(None).feed(b"ffffffffffffffff\r\n")
        self.assertEqual(self.refused(b"0" * 17 + b"\r\n", None), 400)

    def test_extensions(self) -> None:
        """Extensions may have 256 bytes. One more byte is refused before the line is complete."""
        most = b";" + b"a" * (MOST_EXTENSIONS - 1)
        ChunkLines(None).feed(b"3%b\r\n" % most)
        self.assertEqual(self.refused(b"3%ba\r\n" % most), 400)
        self.assertEqual(self.refused(b"3" + b";" + b"a" * 400), 400)

    def test_behind_the_end(self) -> None:
        """Reading chunks behind the end of the body is refused: the parser has seen another end."""
        lines = ChunkLines(100)
        lines.feed(b"0\r\n\r\n")
        self.assertRaises(Refusal, lines.feed, b"0\r\n\r\n")


class ChunksBeginTests(SynchronousTestCase):
    """`chunks_begin`"""

    def test_behind_others(self) -> None:
        """Earlier requests are skipped, also where their bodies look like heads."""
        get = b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"
        inner = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        post = b"POST / HTTP/1.1\r\nCONTENT-length: \t%d\r\n\r\n%b" % (len(inner), inner)
        before = get + post + b"\r\n" + inner
        self.assertEqual(chunks_begin(b"xyz" + before + b"0\r\n\r\n", 3), 3 + len(before))

    def test_none(self) -> None:
        """Data without a chunked request is refused: the parser has read it differently."""
        self.assertRaises(Refusal, chunks_begin, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0)
