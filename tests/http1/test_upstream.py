"""The connection to an upstream server: the responses it accepts and refuses, its timeouts, and the pool."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
from hypothesis import given
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.response_reader import _HEADS
from openhqm.http1.rules import Refusal
from openhqm.http1.upstream import Upstream
from openhqm.http1.upstream_pool import IDLE_SECONDS, UpstreamPool
from tests import hypothesis_profile  # noqa: F401
from tests.http1.memory_server import Transport

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
    "a second response": (
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
    "real-time streaming": b"RTSP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "streaming audio": b"ICE/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "an empty line before": b"\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "signed status": b"HTTP/1.1 +200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 0200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 99 X\r\n\r\n",
    "status over 599": b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n",
    "line feeds only": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "two lengths": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "the same length twice": OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length behind chunked": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "list of lengths": OK + b"Content-Length: 3, 3\r\n\r\nabc",
    "length with a control character": OK + b"Content-Length: 3\x01\r\n\r\nabc",
    "length behind a vertical tab": OK + b"Content-Length: \x0b3\r\n\r\nabc",
    "signed length": OK + b"Content-Length: +3\r\n\r\nabc",
    "length of 19 digits": OK + b"Content-Length: 0000000000000000003\r\n\r\nabc",
    "chunked twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two fields": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked behind a control character": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 3\r\n\r\nabc",
    "no name": OK + b": 3\r\n\r\nabc",
    "null in a value": OK + b"A: b\x00c\r\nContent-Length: 0\r\n\r\n",
    "carriage return in a value": OK + b"A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "signed chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    "chunk in 0x": OK + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "chunk longer than announced": OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "chunk of 2**64": OK + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nabc",
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


class RecordingSink:
    """A `ResponseSink` that records the response."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False
        self.failure: Refusal | None = None

    def responded(self, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]], length: int | None) -> None:
        assert not self.status
        self.status, self.fields = status, list(fields)

    def received(self, piece: bytes) -> None:
        assert self.status and not self.complete
        self.body += piece

    def completed(self) -> None:
        assert self.status and not self.complete and self.failure is None
        self.complete = True

    def failed(self, refusal: Refusal) -> None:
        assert not self.complete and self.failure is None
        self.failure = refusal


class RecordingProducer:
    """The producer of a request's body, which records its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")


class Exchange:
    """A connection in memory with a request under way."""

    def __init__(self, method: bytes = b"GET", chunked: bool = False, sent: bool = True) -> None:
        self.clock = Clock()
        self.released: list[bool] = []
        self.upstream = Upstream(self.clock, lambda upstream, reusable: self.released.append(reusable))
        self.transport = Transport()
        self.upstream.makeConnection(self.transport)
        self.body = RecordingProducer()
        self.sink = RecordingSink()
        self.upstream.begin(b"head", method, chunked, self.body, self.sink, TIMEOUT)
        if sent:
            self.upstream.end()

    def feed(self, *pieces: bytes) -> Exchange:
        for piece in pieces:
            if not self.transport.closed:
                self.upstream.dataReceived(piece)
        return self

    def lose(self, error: type[Exception] = ConnectionDone) -> RecordingSink:
        self.upstream.connectionLost(Failure(error()))
        return self.sink


class ResponseTests(SynchronousTestCase):
    def test_good(self) -> None:
        """A valid response is passed on as it is, in one piece or byte by byte."""
        for name, (data, status, body, kept) in GOOD.items():
            for pieces in ([data], [data[index : index + 1] for index in range(len(data))]):
                exchange = Exchange().feed(*pieces)
                sink = exchange.sink
                self.assertEqual((sink.status, sink.body, sink.complete), (status, body, True), name)
                if len(pieces) == 1:
                    self.assertEqual(exchange.released, [kept], name)
                self.assertEqual(exchange.clock.getDelayedCalls(), [], name)

    def test_bad(self) -> None:
        """An invalid response is a 502, and its connection is closed: in one piece, byte by byte, or cut anywhere."""
        for name, data in BAD.items():
            cuts = [[data[start : start + 65536] for start in range(0, len(data), 65536)]]
            if len(data) < 1000:
                cuts.append([data[index : index + 1] for index in range(len(data))])
                cuts += [[data[:index], data[index:]] for index in range(1, len(data))]
            for pieces in cuts:
                self.refuses(name, pieces)

    def refuses(self, name: str, pieces: list[bytes]) -> None:
        exchange = Exchange().feed(*pieces)
        assert exchange.sink.failure is not None, name
        self.assertEqual((exchange.sink.failure.status, exchange.sink.complete), (502, False), name)
        self.assertEqual((exchange.transport.aborted, exchange.released), (True, [False]), name)

    def test_head(self) -> None:
        """The response to HEAD ends with its head, whatever length that announces."""
        for fields in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"):
            exchange = Exchange(b"HEAD").feed(OK + fields + b"\r\n")
            self.assertEqual((exchange.sink.complete, exchange.released), (True, [True]))

    def test_until_close(self) -> None:
        """The end of the connection ends a response without a length, unless the connection broke."""
        self.assertTrue(Exchange().feed(OK + b"\r\n", b"abc").lose().complete)
        failure = Exchange().feed(OK + b"\r\n", b"abc").lose(ConnectionLost).failure
        assert failure is not None

    def test_connection_lost(self) -> None:
        """A connection lost before or within a response is a 502 that says which."""
        for data, expected in (
            (b"", "before"),
            (b"HTTP/1.1 20", "before"),
            (OK + b"Content-Length: 3\r\n\r\nab", "in the middle"),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "in the middle"),
        ):
            sink = Exchange().feed(data).lose()
            assert sink.failure is not None
            self.assertEqual((sink.failure.status, sink.complete), (502, False))
            self.assertIn(expected, sink.failure.reason)

    @given(st.data())
    def test_same_as_parsed(self, data: st.DataObject) -> None:
        """A response whose head has come before is read as it is by the parser, whatever came before and after it."""
        known = OK + b"Content-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc"
        about = [known, known[:-1], known + b"d", known.replace(b"3", b"0"), known.replace(b"3", b"5"), known * 2]
        about += [known.replace(b"200 OK", code) for code in (b"204 No", b"304 No", b"100 No", b"101 No", b"500 No")]
        about += [
            known.replace(b"Type", b"Type "),
            known.replace(b"plain", b"plain\r\n x"),
            known.replace(b"/1.1", b"/1.0"),
        ]
        responses = [
            *about,
            *(each for each, *_ in GOOD.values()),
            *(each for each in BAD.values() if len(each) < 1000),
        ]
        for response in data.draw(st.lists(st.sampled_from(responses), min_size=2, max_size=6)):
            method = data.draw(st.sampled_from((b"GET", b"HEAD")))
            cut = data.draw(st.integers(0, len(response)) | st.just(0))
            found = self.outcome(method, response[:cut], response[cut:])
            cached = dict(_HEADS._heads)
            _HEADS._heads.clear()
            self.assertEqual(found, self.outcome(method, response[:cut], response[cut:]))
            _HEADS._heads.update(cached)

    def outcome(self, method: bytes, *pieces: bytes) -> tuple[object, ...]:
        exchange = Exchange(method).feed(*filter(None, pieces))
        sink, transport = exchange.sink, exchange.transport
        failure = None if sink.failure is None else (sink.failure.status, sink.failure.reason)
        found = sink.status, sink.fields, sink.body, sink.complete, failure
        return *found, exchange.released, transport.closed, transport.aborted

    @given(st.binary(max_size=200))
    def test_noise(self, noise: bytes) -> None:
        """Random bytes of a server raise no exception, and end the response once."""
        exchange = Exchange().feed(noise)
        sink = exchange.lose()
        self.assertTrue(sink.complete or sink.failure is not None)

    def test_unrequested(self) -> None:
        """A server that sends something without a request is disconnected."""
        exchange = Exchange().feed(OK + b"Content-Length: 0\r\n\r\n")
        exchange.feed(OK + b"Content-Length: 0\r\n\r\n")
        self.assertEqual((exchange.transport.aborted, exchange.released), (True, [True, False]))


class RequestBodyTests(SynchronousTestCase):
    def test_sized(self) -> None:
        """A body of known length goes out as it is."""
        exchange = Exchange(b"POST", sent=False)
        exchange.upstream.write(b"abc")
        exchange.upstream.end()
        self.assertEqual(exchange.transport.value(), b"headabc")

    def test_chunked(self) -> None:
        """A body of unknown length goes out in chunks."""
        exchange = Exchange(b"POST", chunked=True, sent=False)
        exchange.upstream.write(b"abc")
        exchange.upstream.end()
        self.assertEqual(exchange.transport.value(), b"head3\r\nabc\r\n0\r\n\r\n")

    def test_answered_early(self) -> None:
        """A response before the end of the body counts, and its connection is not used again."""
        exchange = Exchange(b"POST", sent=False).feed(OK + b"Content-Length: 0\r\n\r\n")
        self.assertEqual((exchange.sink.complete, exchange.released, exchange.transport.aborted), (True, [False], True))
        exchange.upstream.write(b"abc")
        exchange.upstream.end()
        self.assertEqual(exchange.transport.value(), b"head")

    def test_backpressure(self) -> None:
        """Each side is paused while the other does not keep up."""
        exchange = Exchange(b"POST", sent=False)
        producer = exchange.transport.producer
        producer.pauseProducing()
        producer.resumeProducing()
        self.assertEqual(exchange.body.calls, ["pause", "resume"])
        exchange.upstream.pauseProducing()
        self.assertEqual(exchange.transport.producerState, "paused")
        exchange.upstream.resumeProducing()
        self.assertEqual(exchange.transport.producerState, "producing")

    def test_abort(self) -> None:
        """Aborting closes the connection, and the sink is not called any more."""
        exchange = Exchange()
        exchange.upstream.abort()
        sink = exchange.lose()
        self.assertEqual((exchange.transport.aborted, sink.failure, sink.complete), (True, None, False))


class TimeoutTests(SynchronousTestCase):
    def after(self, exchange: Exchange, seconds: float, each: bytes = b"") -> Refusal | None:
        for _ in range(int(seconds)):
            exchange.clock.advance(1)
            if each:
                exchange.feed(each)
        return exchange.sink.failure

    def test_no_answer(self) -> None:
        """A server that sends nothing, or its head byte by byte, gets a 504."""
        for each in (b"", b"a"):
            exchange = Exchange().feed(b"HTTP/1.1 200 ")
            failure = self.after(exchange, TIMEOUT + 1, each)
            assert failure is not None
            self.assertEqual((failure.status, exchange.transport.aborted), (504, True))

    def test_silence(self) -> None:
        """A response that comes in small pieces is passed on; one that stops is given up."""
        exchange = Exchange().feed(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        self.assertIsNone(self.after(exchange, TIMEOUT * 4, b"1\r\na\r\n"))
        self.assertIsNotNone(self.after(exchange, TIMEOUT + 1))

    def test_server_not_late(self) -> None:
        """A server is not late while the client sends its body, or does not read the response."""
        exchange = Exchange(sent=False)
        self.assertIsNone(self.after(exchange, TIMEOUT * 3))
        exchange.upstream.end()
        self.assertIsNone(self.after(exchange, TIMEOUT - 1))
        exchange.feed(OK + b"\r\n")
        exchange.upstream.pauseProducing()
        self.assertIsNone(self.after(exchange, TIMEOUT * 3))
        exchange.upstream.resumeProducing()
        self.assertIsNotNone(self.after(exchange, TIMEOUT * 2 + 1))

    def test_process_was_stopped(self) -> None:
        """Time in which this process did not run does not count: the answer may have come in it."""
        exchange = Exchange()
        exchange.clock.advance(TIMEOUT - 1)
        exchange.clock.advance(TIMEOUT * 5)
        self.assertIsNone(exchange.sink.failure)
        self.assertIsNotNone(self.after(exchange, TIMEOUT + 1))

    def test_server_does_not_read(self) -> None:
        """A server that does not read the body is given up after the same time."""
        exchange = Exchange(sent=False)
        exchange.transport.producer.pauseProducing()
        self.assertIsNotNone(self.after(exchange, TIMEOUT + 1))


class MemoryEndpoint:
    """A client endpoint that connects in memory."""

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


class UpstreamPoolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.endpoint = Clock(), MemoryEndpoint()
        self.pool = UpstreamPool(self.endpoint, self.clock)

    def exchange(self) -> Upstream:
        upstream = self.successResultOf(self.pool.acquire())
        upstream.begin(b"", b"GET", False, RecordingProducer(), RecordingSink(), TIMEOUT)
        upstream.end()
        upstream.dataReceived(OK + b"Content-Length: 0\r\n\r\n")
        return upstream

    def test_reused(self) -> None:
        """A connection is used again, unless it was idle too long or was lost."""
        first = self.exchange()
        self.assertIs(self.exchange(), first)
        self.clock.advance(IDLE_SECONDS)
        self.assertTrue(self.endpoint.made[0].disconnecting)
        second = self.exchange()
        self.assertIsNot(second, first)
        second.connectionLost(Failure(ConnectionDone()))
        self.assertIsNot(self.exchange(), second)

    def test_two_at_a_time(self) -> None:
        """A connection carries one request at a time."""
        one, two = (self.successResultOf(self.pool.acquire()) for _ in range(2))
        self.assertIsNot(one, two)

    def test_cannot_connect(self) -> None:
        """Connecting fails after `CONNECT_SECONDS`."""
        self.endpoint.now = False
        connecting = self.pool.acquire()
        self.clock.advance(6)
        self.failureResultOf(connecting)

    def test_stop(self) -> None:
        """Stopping closes all connections, in use or idle."""
        self.exchange()
        self.successResultOf(self.pool.acquire())
        self.exchange()
        self.pool.stop()
        self.assertEqual([transport.aborted for transport in self.endpoint.made], [True, True])
