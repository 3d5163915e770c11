"""Heads that are known: a request means the same whether its head was read for the first time or is known."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.known_heads import LONGEST_KNOWN, MOST_KNOWN
from tests import hypothesis_profile  # noqa: F401
from tests.http1.connections import Wire
from tests.http1.strictness import GET, POST, REFUSED, SERVED

BODY = POST + b"Content-Length: 3\r\n\r\nabc"
CLOSE = POST + b"Content-Length: 3\r\nConnection: close\r\n\r\nabc"


class Known(SynchronousTestCase):
    def known(self, wire: Wire) -> list[bytes]:
        """The heads that are known."""
        return list(wire.site.known._heads)

    def test_again(self) -> None:
        """The second time the parser does not see it, on whichever connection; the body is what came now."""
        wire = Wire()
        wire.send(BODY)
        self.assertEqual(self.known(wire), [BODY[:-3]])
        wire.connect()
        wire.protocol._reader._parser = None
        self.assertEqual(wire.statuses(wire.send(BODY[:-3] + b"\r\n\r")), [200])
        self.assertEqual([seen.body for seen in wire.seen], [b"abc", b"\r\n\r"])
        self.assertEqual(wire.seen[0].headers, wire.seen[1].headers)

    def test_not_known(self) -> None:
        """Nothing is known of what came with others, in pieces, chunked, to be asked for, with a secret, or last."""
        for name, stream in {
            "two": BODY + BODY,
            "in pieces": BODY[:10],
            "a line too many": BODY + b"\r\n",
            "a body that begins like the end of a head": POST + b"Content-Length: 3\r\n\r\n\r\na\r\n",
            "chunked": SERVED["chunks"],
            "expected": POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.0": SERVED["HTTP/1.0"],
            "the last": CLOSE,
            "a secret": POST + b"Authorization: Bearer a\r\nContent-Length: 0\r\n\r\n",
            "a cookie": POST + b"COOKIE: a\r\nContent-Length: 0\r\n\r\n",
            "long": POST + b"A: %b\r\n\r\n" % (b"a" * LONGEST_KNOWN),
        }.items():
            wire = Wire()
            wire.send(stream)
            self.assertEqual(self.known(wire), [], name)

    def test_within_another(self) -> None:
        """A body that looks like a known request is a body; behind the last request, nothing is one."""
        inside = POST + b"Content-Length: %d\r\n\r\n" % len(BODY)
        for first, expected in ((inside, 2), (POST + b"Connection: close\r\nContent-Length: 0\r\n\r\n", 2)):
            wire = Wire()
            wire.send(BODY)
            wire.send(first)
            wire.send(BODY)
            self.assertEqual(len(wire.seen), expected, first)
        self.assertTrue(wire.transport.closed)

    def test_full(self) -> None:
        """Many different heads are not kept for ever."""
        wire = Wire()
        for number in range(3 * MOST_KNOWN):
            wire.send(GET + b"A: %d\r\n\r\n" % number)
        self.assertLessEqual(len(self.known(wire)), MOST_KNOWN)

    def test_too_much_under_way(self) -> None:
        """A known head is no way around the bound over all bodies."""
        wire = Wire()
        wire.send(BODY)
        wire.site.buffered = wire.site.most_buffered
        self.assertEqual(wire.statuses(wire.send(BODY)), [503])

    @settings(max_examples=300)
    @given(st.data())
    def test_the_same(self, data: st.DataObject) -> None:
        """Requests good and bad, one or several in a read: with known heads all is as it is without them."""
        again = [*SERVED.values(), *(stream for _, stream in REFUSED.values()), BODY, CLOSE]
        reads = data.draw(st.lists(st.lists(st.sampled_from(again), min_size=1, max_size=2), min_size=1, max_size=4))
        knowing, forgetful = Wire(), Wire()
        for served in SERVED.values():
            knowing.send(served)
            knowing.connect()
        knowing.application.seen.clear()
        for read in reads:
            found = knowing.send(b"".join(read))
            forgetful.site.known._heads.clear()
            expected = forgetful.send(b"".join(read))
            self.assertEqual(knowing.statuses(found), forgetful.statuses(expected))
        self.assertEqual(knowing.seen, forgetful.seen)
        self.assertEqual(knowing.transport.closed, forgetful.transport.closed)
