"""The client's side of the straight path: what a server may answer, and what is made of everything else."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
from hypothesis import given
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.rules import Refusal
from openhqm.http1.upstream import Upstream
from openhqm.http1.upstreams import IDLE_SECONDS, Upstreams
from tests import hypothesis_profile  # noqa: F401
from tests.http1.connections import Transport

OK = b"HTTP/1.1 200 OK\r\n"
TIMEOUT = 30.0

# What a server may answer to a GET -> status, body, whether the connection is kept.
GOOD: dict[str, tuple[bytes, int, bytes, bool]] = {
    "sized": (OK + b"Content-Length: 3\r\n\r\nabc", 200, b"abc", True),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "chunked": (OK + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: x\r\n\r\n", 200, b"abc", True),
    "no reason": (b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", 404, b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + OK
        + b"Content-Length: 1\r\n\r\na",
        200,
        b"a",
        True,
    ),
    "closing": (OK + b"Connection: close\r\nContent-Length: 1\r\n\r\na", 200, b"a", False),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 200, b"a", False),
    "1.0 kept": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", 200, b"a", True),
    "more than was asked for": (
        OK + b"Content-Length: 1\r\n\r\na" + OK + b"Content-Length: 0\r\n\r\n",
        200,
        b"a",
        False,
    ),
    "garbage behind": (OK + b"Content-Length: 1\r\n\r\nabc", 200, b"a", False),
}
BAD: dict[str, bytes] = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00",
    "another protocol": b"SSH-2.0-OpenSSH_9.0\r\n",
    "version": b"HTTP/2.0 200 OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 99 X\r\n\r\n",
    "status over 599": b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n",
    "line feeds only": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "two lengths": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "the same length twice": OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "negative length": OK + b"Content-Length: -3\r\n\r\n",
    "gzip": OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "continued line": OK + b"A: b\r\n c\r\n\r\n",
    "unasked upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "interim with a body": b"HTTP/1.1 103 X\r\nContent-Length: 3\r\n\r\nabc" + OK + b"\r\n",
    "100,000 fields": OK + b"A: b\r\n" * 100_000 + b"\r\n",
    "a field that never ends": OK + b"A: " + b"b" * 200_000,
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
}


class Taking:
    """Takes a response, and notes it."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.whole = False
        self.failure: Refusal | None = None

    def responded(self, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]], length: int | None) -> None:
        assert not self.status
        self.status, self.fields = status, list(fields)

    def received(self, piece: bytes) -> None:
        assert self.status and not self.whole
        self.body += piece

    def completed(self) -> None:
        assert self.status and not self.whole and self.failure is None
        self.whole = True

    def failed(self, refusal: Refusal) -> None:
        assert not self.whole and self.failure is None
        self.failure = refusal


class Sending:
    """Whoever sends the body of a request, and is told to pause."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def pauseProducing(self) -> None:
        self.words.append("pause")

    def resumeProducing(self) -> None:
        self.words.append("resume")


class Exchange:
    """A connection in memory, with a request under way."""

    def __init__(self, method: bytes = b"GET", chunked: bool = False, sent: bool = True) -> None:
        self.clock = Clock()
        self.back: list[bool] = []
        self.upstream = Upstream(self.clock, lambda upstream, reusable: self.back.append(reusable))
        self.transport = Transport()
        self.upstream.makeConnection(self.transport)
        self.sending = Sending()
        self.taking = Taking()
        self.upstream.begin(b"head", method, chunked, self.sending, self.taking, TIMEOUT)
        if sent:
            self.upstream.end()

    def feed(self, *pieces: bytes) -> Exchange:
        for piece in pieces:
            if not self.transport.closed:
                self.upstream.dataReceived(piece)
        return self

    def lose(self, error: type[Exception] = ConnectionDone) -> Taking:
        self.upstream.connectionLost(Failure(error()))
        return self.taking


class Answers(SynchronousTestCase):
    def test_good(self) -> None:
        """Each is taken as it is, in one piece or byte by byte."""
        for name, (data, status, body, kept) in GOOD.items():
            for pieces in ([data], [data[index : index + 1] for index in range(len(data))]):
                exchange = Exchange().feed(*pieces)
                taking = exchange.taking
                self.assertEqual((taking.status, taking.body, taking.whole), (status, body, True), name)
                if len(pieces) == 1:
                    self.assertEqual(exchange.back, [kept], name)
                self.assertEqual(exchange.clock.getDelayedCalls(), [], name)

    def test_bad(self) -> None:
        """Each is a 502, the connection is closed, and nothing of it was taken for an answer."""
        for name, data in BAD.items():
            exchange = Exchange().feed(*(data[start : start + 65536] for start in range(0, len(data), 65536)))
            assert exchange.taking.failure is not None, name
            self.assertEqual((exchange.taking.failure.status, exchange.taking.whole), (502, False), name)
            self.assertEqual((exchange.transport.aborted, exchange.back), (True, [False]), name)

    def test_head(self) -> None:
        """The answer to HEAD ends with its head, whatever length it speaks of."""
        for fields in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"):
            exchange = Exchange(b"HEAD").feed(OK + fields + b"\r\n")
            self.assertEqual((exchange.taking.whole, exchange.back), (True, [True]))

    def test_until_close(self) -> None:
        """Without a length the end of the connection is the end of the body, if it is one in order."""
        self.assertTrue(Exchange().feed(OK + b"\r\n", b"abc").lose().whole)
        failure = Exchange().feed(OK + b"\r\n", b"abc").lose(ConnectionLost).failure
        assert failure is not None

    def test_cut(self) -> None:
        """Before its answer, in its head, in its body: the failure says which."""
        for data, words in (
            (b"", "before"),
            (b"HTTP/1.1 20", "before"),
            (OK + b"Content-Length: 3\r\n\r\nab", "in the middle"),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "in the middle"),
        ):
            taking = Exchange().feed(data).lose()
            assert taking.failure is not None
            self.assertEqual((taking.failure.status, taking.whole), (502, False))
            self.assertIn(words, taking.failure.reason)

    @given(st.binary(max_size=200))
    def test_noise(self, noise: bytes) -> None:
        """Whatever a server sends: no exception, and one end."""
        exchange = Exchange().feed(noise)
        taking = exchange.lose()
        self.assertTrue(taking.whole or taking.failure is not None)

    def test_unasked(self) -> None:
        """A server that speaks without having been asked is hung up on."""
        exchange = Exchange().feed(OK + b"Content-Length: 0\r\n\r\n")
        exchange.feed(OK + b"Content-Length: 0\r\n\r\n")
        self.assertEqual((exchange.transport.aborted, exchange.back), (True, [True, False]))


class Bodies(SynchronousTestCase):
    def test_sized(self) -> None:
        """A body of known length goes as it is."""
        exchange = Exchange(b"POST", sent=False)
        exchange.upstream.write(b"abc")
        exchange.upstream.end()
        self.assertEqual(exchange.transport.value(), b"headabc")

    def test_chunked(self) -> None:
        """One of unknown length goes in chunks."""
        exchange = Exchange(b"POST", chunked=True, sent=False)
        exchange.upstream.write(b"abc")
        exchange.upstream.end()
        self.assertEqual(exchange.transport.value(), b"head3\r\nabc\r\n0\r\n\r\n")

    def test_answered_early(self) -> None:
        """An answer before the end of the body is an answer, and the connection cannot be used again."""
        exchange = Exchange(b"POST", sent=False).feed(OK + b"Content-Length: 0\r\n\r\n")
        self.assertEqual((exchange.taking.whole, exchange.back, exchange.transport.aborted), (True, [False], True))
        exchange.upstream.write(b"abc")
        exchange.upstream.end()
        self.assertEqual(exchange.transport.value(), b"head")

    def test_pace(self) -> None:
        """Each side is paused while the other does not keep up."""
        exchange = Exchange(b"POST", sent=False)
        producer = exchange.transport.producer
        producer.pauseProducing()
        producer.resumeProducing()
        self.assertEqual(exchange.sending.words, ["pause", "resume"])
        exchange.upstream.pauseProducing()
        self.assertEqual(exchange.transport.producerState, "paused")
        exchange.upstream.resumeProducing()
        self.assertEqual(exchange.transport.producerState, "producing")

    def test_abort(self) -> None:
        """Nobody waits any more: the connection is closed, and nobody is told of what follows."""
        exchange = Exchange()
        exchange.upstream.abort()
        taking = exchange.lose()
        self.assertEqual((exchange.transport.aborted, taking.failure, taking.whole), (True, None, False))


class Times(SynchronousTestCase):
    def after(self, exchange: Exchange, seconds: float, each: bytes = b"") -> Refusal | None:
        for _ in range(int(seconds)):
            exchange.clock.advance(1)
            if each:
                exchange.feed(each)
        return exchange.taking.failure

    def test_no_answer(self) -> None:
        """504 when nothing comes, and when its head drips."""
        for each in (b"", b"a"):
            exchange = Exchange().feed(b"HTTP/1.1 200 ")
            failure = self.after(exchange, TIMEOUT + 1, each)
            assert failure is not None
            self.assertEqual((failure.status, exchange.transport.aborted), (504, True))

    def test_silence(self) -> None:
        """A body that drips is let through as it is; one that has stopped is given up."""
        exchange = Exchange().feed(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        self.assertIsNone(self.after(exchange, TIMEOUT * 4, b"1\r\na\r\n"))
        self.assertIsNotNone(self.after(exchange, TIMEOUT + 1))

    def test_not_to_blame(self) -> None:
        """A server is not late while the client sends, or does not read."""
        exchange = Exchange(sent=False)
        self.assertIsNone(self.after(exchange, TIMEOUT * 3))
        exchange.upstream.end()
        self.assertIsNone(self.after(exchange, TIMEOUT - 1))
        exchange.feed(OK + b"\r\n")
        exchange.upstream.pauseProducing()
        self.assertIsNone(self.after(exchange, TIMEOUT * 3))
        exchange.upstream.resumeProducing()
        self.assertIsNotNone(self.after(exchange, TIMEOUT * 2 + 1))

    def test_does_not_read(self) -> None:
        """A server that takes no more of the body has as long."""
        exchange = Exchange(sent=False)
        exchange.transport.producer.pauseProducing()
        self.assertIsNotNone(self.after(exchange, TIMEOUT + 1))


class Endpoint:
    """Connects in memory."""

    def __init__(self) -> None:
        self.made: list[Transport] = []
        self.protocols: list[Upstream] = []
        self.waiting: list[Deferred[Upstream]] = []
        self.now = True

    def connect(self, factory: object) -> Deferred[Upstream]:
        if self.now:
            protocol = factory.buildProtocol(None)  # type: ignore[attr-defined]
            self.made.append(Transport())
            protocol.makeConnection(self.made[-1])
            self.protocols.append(protocol)
        connecting: Deferred[Upstream] = Deferred()
        self.waiting.append(connecting)
        if self.now:
            connecting.callback(protocol)
        return connecting


class Kept(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.endpoint = Clock(), Endpoint()
        self.upstreams = Upstreams(self.endpoint, self.clock)

    def exchange(self) -> Upstream:
        upstream = self.successResultOf(self.upstreams.take())
        upstream.begin(b"", b"GET", False, Sending(), Taking(), TIMEOUT)
        upstream.end()
        upstream.dataReceived(OK + b"Content-Length: 0\r\n\r\n")
        return upstream

    def test_kept(self) -> None:
        """A connection is used again; for a moment, and not once it was lost."""
        first = self.exchange()
        self.assertIs(self.exchange(), first)
        self.clock.advance(IDLE_SECONDS)
        self.assertTrue(self.endpoint.made[0].disconnecting)
        second = self.exchange()
        self.assertIsNot(second, first)
        second.connectionLost(Failure(ConnectionDone()))
        self.assertIsNot(self.exchange(), second)

    def test_two_at_a_time(self) -> None:
        """A connection serves one request at a time."""
        one, two = (self.successResultOf(self.upstreams.take()) for _ in range(2))
        self.assertIsNot(one, two)

    def test_cannot_connect(self) -> None:
        """Connecting has its time, too."""
        self.endpoint.now = False
        taking = self.upstreams.take()
        self.clock.advance(6)
        self.failureResultOf(taking)

    def test_stop(self) -> None:
        """All are hung up on, busy or idle."""
        self.exchange()
        self.successResultOf(self.upstreams.take())
        self.exchange()
        self.upstreams.stop()
        self.assertEqual([transport.aborted for transport in self.endpoint.made], [True, True])
