"""The head cache: a request means the same whether its head is parsed or found in the cache."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.head_cache import LONGEST_CACHED, MOST_CACHED, MOST_SEEN
from tests import hypothesis_profile  # noqa: F401
from tests.http1.memory_server import MemoryServer
from tests.http1.request_cases import GET, POST, REFUSED, SERVED

BODY = POST + b"Content-Length: 3\r\n\r\nabc"
CLOSE = POST + b"Content-Length: 3\r\nConnection: close\r\n\r\nabc"


class HeadCacheTests(SynchronousTestCase):
    def cached(self, server: MemoryServer) -> list[bytes]:
        """The heads in the server's cache."""
        return [*server.site.head_cache._heads]

    def test_found(self) -> None:
        """The parser does not see a cached head again, on any connection. The body is the new request's."""
        server = MemoryServer()
        for _ in range(2):
            server.send(BODY)
        self.assertEqual(self.cached(server), [BODY[:-3]])
        server.connect()
        server.protocol._reader._parser = None
        self.assertEqual(server.statuses(server.send(BODY[:-3] + b"\r\n\r")), [200])
        self.assertEqual([seen.body for seen in server.seen], [b"abc", b"abc", b"\r\n\r"])
        self.assertEqual(server.seen[0].headers, server.seen[2].headers)

    def test_guessed(self) -> None:
        """Any number of heads that come once, as those with a guessed key, takes the place of no other."""
        server = MemoryServer()
        for _ in range(2):
            server.send(BODY)
        for number in range(2 * MOST_SEEN):
            server.send(GET + b"OpenHQM-Key: %d\r\n\r\n" % number)
        self.assertEqual(self.cached(server), [BODY[:-3]])

    def test_not_cached(self) -> None:
        """Heads are not cached where requests came together, in pieces or chunked, where they wait for 100 Continue, or
        end their connection.
        """
        for name, stream in {
            "two": BODY + BODY,
            "in pieces": BODY[:10],
            "a line too many": BODY + b"\r\n",
            "a body that begins like the end of a head": POST + b"Content-Length: 3\r\n\r\n\r\na\r\n",
            "chunked": SERVED["chunks"],
            "expected": POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.0": SERVED["HTTP/1.0"],
            "the last": CLOSE,
            "long": POST + b"A: %b\r\n\r\n" % (b"a" * LONGEST_CACHED),
        }.items():
            server = MemoryServer()
            for _ in range(2):
                server.send(stream)
                server.connect()
            self.assertEqual(self.cached(server), [], name)

    def test_credentials(self) -> None:
        """A head with a credential is found for that one alone. Any other is read, in whatever form it stands there."""
        server = MemoryServer()
        head = POST + b"%bContent-Length: 3\r\n\r\nabc"
        for _ in range(2):
            server.send(head % b"Authorization: Bearer one\r\n")
        for more in (
            b"Authorization: Bearer one\r\n",
            b"Authorization: Bearer two\r\n",
            b"Authorization: Bearer one\r\nOpenHQM-Key: two\r\n",
            b"Authorization:  Bearer one \r\n",
            b"Authorization: Bearer one\r\nAuthorization: Bearer one\r\n",
            b"",
        ):
            server.send(head % more)
            found = [value for name, value in server.seen[-1].headers if name in (b"authorization", b"openhqm-key")]
            said = [line.partition(b":")[2].strip() for line in more.split(b"\r\n")[:-1]]
            self.assertEqual(found, said)

    def test_credential_elsewhere(self) -> None:
        """What looks like a credential in a body is a part of the body."""
        server = MemoryServer()
        body = b"\r\nOpenHQM-Key: stolen\r\n..."
        for _ in range(3):
            server.send(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            self.assertEqual(server.seen[-1].body, body)
            self.assertNotIn(b"openhqm-key", dict(server.seen[-1].headers))

    def test_within_another(self) -> None:
        """A body that looks like a cached request is a body, and nothing behind the last request is a request."""
        inside = POST + b"Content-Length: %d\r\n\r\n" % len(BODY)
        for first, expected in ((inside, 3), (POST + b"Connection: close\r\nContent-Length: 0\r\n\r\n", 3)):
            server = MemoryServer()
            for _ in range(2):
                server.send(BODY)
            server.send(first)
            server.send(BODY)
            self.assertEqual(len(server.seen), expected, first)
        self.assertTrue(server.transport.closed)

    def test_full(self) -> None:
        """The cache does not grow beyond its limit, however many different heads are sent."""
        server = MemoryServer()
        for number in range(3 * MOST_CACHED):
            for _ in range(2):
                server.send(GET + b"A: %d\r\n\r\n" % number)
        self.assertLessEqual(len(self.cached(server)), MOST_CACHED)

    def test_most_buffered(self) -> None:
        """The limit of buffered bodies holds for requests with cached heads, too."""
        server = MemoryServer()
        for _ in range(2):
            server.send(BODY)
        server.site.buffered = server.site.most_buffered
        self.assertEqual(server.statuses(server.send(BODY)), [503])

    @settings(max_examples=300)
    @given(st.data())
    def test_same_as_parsed(self, data: st.DataObject) -> None:
        """Valid and invalid requests, one or two in a read, are served as they are without the cache."""
        known = BODY.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer one\r\n\r\n")
        again = [*SERVED.values(), *(stream for _, stream in REFUSED.values()), BODY, CLOSE, known]
        again += [known.replace(b"one", b"two"), known.replace(b"one", b"a\r\n b"), known.replace(b"abc", b"abcd")]
        again += [known.replace(b"Bearer one", value) for value in (b"", b"a b c", b"\x00", b"a\r\nOpenHQM-Key: b")]
        reads = data.draw(st.lists(st.lists(st.sampled_from(again), min_size=1, max_size=2), min_size=1, max_size=4))
        caching, parsing = MemoryServer(), MemoryServer()
        for served in (*SERVED.values(), known) * 2:
            caching.send(served)
            caching.connect()
        caching.application.seen.clear()
        for read in reads:
            found = caching.send(b"".join(read))
            parsing.site.head_cache._heads.clear()
            expected = parsing.send(b"".join(read))
            self.assertEqual(caching.statuses(found), parsing.statuses(expected))
        self.assertEqual(caching.seen, parsing.seen)
        self.assertEqual(caching.transport.closed, parsing.transport.closed)
